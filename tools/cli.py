"""``torch-tvm``: import, compile, run, explain and measure a model from the command line.

    torch-tvm import --via fx,torchscript,lazy [--diff] MODEL
    torch-tvm compile|run|explain MODEL
    torch-tvm compile MODEL -o model.ttvm && torch-tvm run model.ttvm --check
    torch-tvm bench --suite cpu | --kernels | --imports

MODEL is the name of a model of the zoo, a ``.pt`` file of ``torch.jit.save``, a ``.pt2`` file of
``torch.export.save``, or a file with text: ``.mlir`` or ``.mlirbc``, ``.ts`` (a TorchScript graph), ``.ltc`` (a lazy dump).
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_tvm.support.errors import ImportFailed, InvalidInput, TorchTvmError

if TYPE_CHECKING:
    from torch_tvm.dialect.module import TorchModule
    from torch_tvm.tools.sources import Source

FRONTENDS = ("fx", "torchscript", "lazy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for a failure or a difference, 2 for input that is wrong."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if given[:1] == ["bench"]:
            return _bench(given[1:])
        command = _parser().parse_args(given)
        return int(command.action(command))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130
    except (TorchTvmError, OSError) as error:
        print(f"torch-tvm: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, (InvalidInput, ImportFailed, OSError)) else 1


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="torch-tvm",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "model", metavar="MODEL", help="a model of the zoo, or a .pt, .pt2, .mlir, .ts or .ltc file"
    )
    model.add_argument("--batch", type=int, default=1, metavar="N", help="batch size of a model of the zoo")
    model.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="SPEC",
        help="an argument of a file's model: 1x3x64x64:f32",
    )
    target = argparse.ArgumentParser(add_help=False)
    target.add_argument("--via", default="", metavar="FRONTEND", help=f"the importer: {', '.join(FRONTENDS)}")
    target.add_argument(
        "--target", default="auto", help="auto, llvm, cuda, or an LLVM processor name as mcpu=NAME"
    )
    target.add_argument(
        "--no-fallback", action="store_true", help="an op that is left to PyTorch is an error"
    )

    def add(
        name: str, action: Callable[[argparse.Namespace], int], text: str, *parents: Any
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=list(parents))
        made.set_defaults(action=action)
        return made

    imported = add("import", _import, "print the canonical Torch dialect module of a model", model)
    imported.add_argument(
        "--via",
        default="",
        metavar="FRONTENDS",
        help=f"importers, separated by commas: {', '.join(FRONTENDS)}",
    )
    imported.add_argument(
        "--diff",
        action="store_true",
        help="compare the first frontend with the others; exit code 1 if they differ",
    )
    imported.add_argument(
        "-o",
        dest="output",
        metavar="FILE",
        help="write the whole module, weights included, to a .mlir or .mlirbc file",
    )
    compiled = add("compile", _compile, "compile a model and say what became of it", model, target)
    compiled.add_argument(
        "-o", dest="output", metavar="FILE", help="save the result: .ttvm, or .so for a plain TVM library"
    )
    compiled.add_argument(
        "--targets",
        default="",
        metavar="NAMES",
        help="processors that a .ttvm has code for: x86-64-v3,x86-64-v4",
    )
    compiled.add_argument(
        "--originals", action="store_true", help="keep the weights as the program has them, too"
    )
    ran = add(
        "run",
        _run,
        "compile a model, run it and compare it with eager PyTorch; or run a .ttvm file, whose --input is a file",
        model,
        target,
    )
    ran.add_argument("--check", action="store_true", help="compare with the results that a .ttvm file has")
    ran.add_argument("-o", dest="output", metavar="FILE", help="write the results of a .ttvm file to a .npz")
    ran.add_argument("--seed", type=int, default=0, help="seed of the model's weights and inputs")
    add(
        "explain",
        _explain,
        "compile a model and print the report: kernels, refusals, ops in PyTorch",
        model,
        target,
    )
    commands.add_parser("bench", help="measure models; its options are its own: torch-tvm bench --help")
    return parser


# -- commands ------------------------------------------------------------------------------------------------


def _source(command: argparse.Namespace) -> Source:
    from torch_tvm.tools.sources import find

    return find(command.model, command.batch, command.input, seed=getattr(command, "seed", 0))


def _frontends(text: str, source: Source) -> list[str]:
    frontends = [frontend.strip() for frontend in text.split(",") if frontend.strip()] or [
        source.frontends[0]
    ]
    for frontend in frontends:
        if frontend not in (*FRONTENDS, *source.frontends):
            raise InvalidInput(
                f"no such importer '{frontend}'", subject="--via", advice=f"known: {', '.join(FRONTENDS)}"
            )
        if frontend not in source.frontends:
            raise InvalidInput(
                f"'{source.name}' cannot be imported by {frontend}",
                subject="--via",
                advice=f"possible: {', '.join(source.frontends)}",
            )
    return list(dict.fromkeys(frontends))


def _import(command: argparse.Namespace) -> int:
    source = _source(command)
    frontends = _frontends(command.via, source)
    if command.diff and len(frontends) < 2:
        raise InvalidInput(
            "a comparison needs two importers", subject="--diff", advice="name them: --via fx,lazy"
        )
    if command.output and len(frontends) > 1:
        raise InvalidInput("one file holds one module", subject="-o", advice="name one importer: --via fx")
    modules = {frontend: source.module(frontend) for frontend in frontends}
    if command.diff:
        return _differences(modules)
    if command.output:
        modules[frontends[0]].save(command.output)
        return 0
    for frontend, module in modules.items():
        if len(frontends) > 1:
            print(f"// via {frontend}")
        print(module.asm(elide=True))
    return 0


def _differences(modules: dict[str, TorchModule]) -> int:
    from torch_tvm.dialect.structure import difference

    first, *others = modules
    is_different = False
    for other in others:
        lines = difference(modules[first], modules[other])
        if lines:
            is_different = True
            print("\n".join([f"--- {first}", f"+++ {other}", *lines[2:]]))
        else:
            print(f"{first} and {other} give the same program")
    return int(is_different)


def _compiled(command: argparse.Namespace) -> tuple[Source, Any]:
    import torch_tvm

    source = _source(command)
    (frontend, *more) = _frontends(command.via, source)
    if more:
        raise InvalidInput("a model is compiled by one frontend", subject="--via", advice="name one importer")
    target: Any = command.target
    if target.startswith("mcpu="):
        target = {"kind": "llvm", "mcpu": target.removeprefix("mcpu=")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch_tvm.FallbackWarning)
        compiled = torch_tvm.compile(source.module(frontend), target=target, fallback=not command.no_fallback)
    compiled.report.frontend = frontend
    return source, compiled


def _compile(command: argparse.Namespace) -> int:
    if command.output and not command.output.endswith((".ttvm", ".so")):
        raise InvalidInput(
            f"cannot tell the format from '{command.output}'", subject="-o", advice="name it .ttvm or .so"
        )
    source, compiled = _compiled(command)
    report = compiled.report
    seconds = sum(report.seconds.values())
    print(
        f"{len(report.kernels)} kernels, {len(report.fallbacks)} ops in PyTorch, "
        f"compiled in {seconds:.2f} s for {report.target}"
    )
    if command.output and command.output.endswith(".so"):
        compiled.export_library(command.output)
    elif command.output:
        targets = [name.strip() for name in command.targets.split(",") if name.strip()] or None
        sample = source.arguments()
        compiled.save(command.output, targets=targets, originals=command.originals, sample_args=sample)
    return 0


def _run(command: argparse.Namespace) -> int:
    import torch
    from torch.utils import _pytree as pytree

    from torch_tvm.tools.numerics import assert_matches
    from torch_tvm.tools.saved import described, run_saved

    if command.model.endswith(".ttvm"):
        return run_saved(
            command.model, command.input, check=command.check, output=command.output, seed=command.seed
        )
    if command.check or command.output:
        raise InvalidInput(
            "--check and -o are for .ttvm files", advice="a model is compared with eager PyTorch"
        )
    source, compiled = _compiled(command)
    args = source.arguments()
    results = compiled(*args)
    for index, leaf in enumerate(pytree.tree_leaves(results)):
        print(f"result {index}: {described(leaf)}")
    if source.program is None:
        print("a text has no eager program to compare with")
        return 0
    try:
        with torch.no_grad():
            assert_matches(results, _in_either_precision(source.program), args)
    except AssertionError as error:
        print(f"differs from eager PyTorch: {error}")
        return 1
    print("agrees with eager PyTorch")
    return 0


def _in_either_precision(program: Any) -> Callable[..., Any]:
    """``program``, with parameters in double precision where its arguments are and it has parameters."""
    import copy

    import torch
    from torch.utils import _pytree as pytree

    def call(*args: Any) -> Any:
        floats = [
            a for a in pytree.tree_leaves(args) if isinstance(a, torch.Tensor) and a.is_floating_point()
        ]
        is_double = bool(floats) and all(tensor.dtype == torch.float64 for tensor in floats)
        has_parameters = isinstance(program, torch.nn.Module) and next(program.parameters(), None) is not None
        return copy.deepcopy(program).double()(*args) if is_double and has_parameters else program(*args)

    return call


def _explain(command: argparse.Namespace) -> int:
    _, compiled = _compiled(command)
    print(compiled.report)
    return 0


def _bench(arguments: Sequence[str]) -> int:
    from torch_tvm.tools.bench import main as bench

    return bench(arguments)


__all__ = ["Path", "main"]

if __name__ == "__main__":
    sys.exit(main())
