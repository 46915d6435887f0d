"""``torch-tvm``: import, compile, run, explain and measure a model from the command line.

    torch-tvm import --via fx,torchscript,lazy [--diff] MODEL
    torch-tvm compile MODEL -o model.ttvm && torch-tvm run model.ttvm --check
    torch-tvm run nets.py:MyNet --input x:1x3x64x64:f32 -o results.npz
    torch-tvm explain MODEL -o page.html
    torch-tvm bench MODEL | --suite cpu | --kernels | --imports | --training
    torch-tvm tune MODEL --database tuned --trials 500
    torch-tvm doctor
    torch-tvm cache info|clear
    torch-tvm completion bash|zsh

MODEL is ``file.py:Name`` (a class that needs no arguments, a module, or a function), the name of a model of the zoo, a
``.pt`` file of ``torch.jit.save``, a ``.pt2`` file of ``torch.export.save``, an ``.onnx`` file, a file with text
(``.mlir``, ``.mlirbc``, ``.ts``: a TorchScript graph, ``.ltc``: a lazy dump), or a ``.ttvm`` file that ``compile``
wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch_tvm.support.errors import ImportFailed, InvalidInput, TorchTvmError
from torch_tvm.support.files import check_writable, write_whole
from torch_tvm.tools import cache
from torch_tvm.tools.command_line import Parser, amount, count, fail, seed
from torch_tvm.tools.completion import SHELLS, script

if TYPE_CHECKING:
    import torch

    from torch_tvm.dialect.module import TorchModule
    from torch_tvm.tools.inputs.sources import Source

FRONTENDS = ("fx", "torchscript", "lazy")
_MODEL = "file.py:Name, a model of the zoo, or a .pt, .pt2, .onnx, .mlir, .ts, .ltc file"
_PAGES = (".html", ".json", ".txt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for a failure or a difference, 2 for input that is wrong."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if given[:1] == ["bench"] and not _names_a_model(given[1:]):
            return _bench_suites(given[1:])
        command = _parser().parse_args(given)
        try:
            code = int(command.action(command))
        except SystemExit as error:  # of the model: argparse has read its options by now
            raise InvalidInput(
                f"it ends the process (exit code {error.code})", subject=getattr(command, "model", "")
            ) from None
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130
    except (TorchTvmError, OSError) as error:
        fail("torch-tvm", error, is_json="--json" in given)
        return 2 if isinstance(error, (InvalidInput, ImportFailed, OSError)) else 1
    except Exception as error:
        if os.environ.get("TORCH_TVM_TRACEBACK"):
            raise
        fail("torch-tvm", error, is_json="--json" in given)
        return 1


def _names_a_model(arguments: Sequence[str]) -> bool:
    """Whether ``bench`` is asked for one model, which comes first; its suites have options only."""
    return bool(arguments) and not arguments[0].startswith("-")


Add = Callable[..., argparse.ArgumentParser]
"""Adds a command: its name, what it does, a line about it, and the parsers whose options it has as well."""


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = Parser(
        prog="torch-tvm",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, action: Callable[[argparse.Namespace], int], text: str, *parents: Any
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=list(parents))
        made.set_defaults(action=action)
        return made

    model, target = _model_options(), _target_options()
    _add_import(add, model)
    _add_compile(add, model, target)
    _add_runs(add, model, target)
    _add_tune(add, model, target)
    _add_surroundings(add)
    return parser


def _model_options() -> argparse.ArgumentParser:
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("model", metavar="MODEL", help=_MODEL)
    model.add_argument("--batch", type=count, default=1, metavar="N", help="batch size of a model of the zoo")
    model.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="SPEC",
        help="an argument: 1x3x64x64:f32, name:1x3:int64 (random values; ? is an unknown size, ?64 one that is 64 "
        "now), or a .npz, .npy or .pt file",
    )
    model.add_argument("--seed", type=seed, default=0, help="seed of random weights and inputs")
    model.add_argument("--json", action="store_true", help="print one JSON object")
    return model


def _target_options() -> argparse.ArgumentParser:
    target = argparse.ArgumentParser(add_help=False)
    target.add_argument("--via", default="", metavar="FRONTEND", help=f"the importer: {', '.join(FRONTENDS)}")
    target.add_argument(
        "--target",
        default="auto",
        help="auto, llvm, cuda, a dict as JSON, or an LLVM processor name as mcpu=NAME",
    )
    target.add_argument("--no-fallback", action="store_true", help="an op that is left to PyTorch is an error")
    target.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of torch_tvm.compile, such as accuracy=fast or opt_level=2",
    )
    target.add_argument("--database", default="", metavar="FOLDER", help="use what torch-tvm tune left in this folder")
    return target


def _add_import(add: Add, *parents: argparse.ArgumentParser) -> None:
    imported = add("import", _import, "print the canonical Torch dialect module of a model", *parents)
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


def _add_compile(add: Add, *parents: argparse.ArgumentParser) -> None:
    compiled = add("compile", _compile, "compile a model and say what became of it", *parents)
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
        "--linker",
        metavar="CC",
        help="the C compiler that links for another CPU, aarch64-linux-gnu-gcc for one",
    )
    compiled.add_argument("--originals", action="store_true", help="keep the weights as the program has them, too")


def _add_runs(add: Add, *parents: argparse.ArgumentParser) -> None:
    text = "compile a model, or load a .ttvm file, run it, and compare a model with eager PyTorch"
    ran = add("run", _run, text, *parents)
    ran.add_argument("--check", action="store_true", help="compare with the results that a .ttvm file has")
    ran.add_argument("-o", dest="output", metavar="FILE", help="write the results: .npz, .npy or .pt")
    text = "compile a model, or read a .ttvm file, and print the report: kernels, refusals, ops in PyTorch"
    explained = add("explain", _explain, text, *parents)
    explained.add_argument("-o", dest="output", metavar="FILE", help=f"write it: {', '.join(_PAGES)}")
    explained.add_argument("--benchmark", action="store_true", help="time each kernel as well")
    measured = add("bench", _bench, "time a model's kernels, or suites: torch-tvm bench --help", *parents)
    measured.add_argument("--runs", type=count, default=10, metavar="N", help="runs of which the median counts")


def _add_tune(add: Add, *parents: argparse.ArgumentParser) -> None:
    text = "look for faster schedules by measurement, and keep them in a folder; after Ctrl-C it goes on there"
    tuned = add("tune", _tune, text, *parents)
    tuned.add_argument("--trials", type=count, metavar="N", help="schedules to try, earlier runs counted")
    tuned.add_argument("--seconds", type=amount, metavar="S", help="how long to go on")
    tuned.add_argument("--tracker", metavar="HOST:PORT/KEY", help="measure on the servers of this TVM RPC tracker")


def _add_surroundings(add: Add) -> None:
    """What is about no model: the installation, the code on disk, the shell."""
    doctor = add("doctor", _doctor, "what is installed, what is missing, and what to do about it")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    kept = add("cache", cache.run, "the compiled code that is kept on disk for later processes")
    kept.add_argument("what", choices=("info", "clear"), help="print where and how much it is, or delete it")
    kept.add_argument("--json", action="store_true", help="print one JSON object")
    shell = add("completion", _completion, "print what a shell needs to complete these commands")
    shell.add_argument("shell", choices=SHELLS, help='for bash: eval "$(torch-tvm completion bash)"')


# -- steps ---------------------------------------------------------------------------------------------------


@contextmanager
def _step(text: str) -> Iterator[None]:
    """What goes on now, on a terminal only, until it is done."""
    is_shown = sys.stderr.isatty()
    if is_shown:
        print(f"\r\033[K{text} …", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _say(command: argparse.Namespace, values: dict[str, Any], lines: Sequence[str]) -> None:
    """The answer: one JSON object, or lines."""
    print(json.dumps(values, indent=1) if command.json else "\n".join(lines))


def _check_extension(path: str | None, known: Sequence[str]) -> None:
    if path and not path.endswith(tuple(known)):
        raise InvalidInput(
            f"cannot tell the format from '{path}'", subject="-o", advice=f"name it {' or '.join(known)}"
        )
    check_writable(path, "-o")


def _source(command: argparse.Namespace) -> Source:
    from torch_tvm.tools.inputs.sources import find

    if command.model.endswith(".ttvm"):
        raise InvalidInput(
            "it is compiled",
            subject=command.model,
            advice="run or explain it, or name what it was compiled from",
        )
    with _step(f"making {command.model}"):
        return find(command.model, command.batch, command.input, seed=command.seed)


def _frontends(text: str, source: Source) -> list[str]:
    frontends = [frontend.strip() for frontend in text.split(",") if frontend.strip()] or [source.frontends[0]]
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


def _imported(command: argparse.Namespace) -> tuple[Source, str, Any, TorchModule]:
    """The model, its frontend, the target, and the module that the one imports for the other."""
    from torch_tvm.targets import resolve_target

    name = command.target
    named = {"kind": "llvm", "mcpu": name.removeprefix("mcpu=")} if name.startswith("mcpu=") else name
    target = resolve_target(named)  # what is wrong with it, before anything takes time
    source = _source(command)
    (frontend, *more) = _frontends(command.via, source)
    if more:
        raise InvalidInput("a model is compiled by one frontend", subject="--via", advice="name one importer")
    with _step(f"importing {source.name} by {frontend}"):
        return source, frontend, target, source.module(frontend)


def _options(texts: Sequence[str]) -> dict[str, Any]:
    """What ``--option`` says: values as JSON has them, and texts as they are."""
    from torch_tvm.options import Options

    found: dict[str, Any] = {}
    for text in texts:
        name, is_given, value = text.partition("=")
        if not is_given:
            raise InvalidInput(f"cannot read '{text}'", subject="--option", advice="write accuracy=fast, for one")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    Options.parse(found)  # what is wrong with them, before anything takes time
    return found


def _compiled(command: argparse.Namespace) -> tuple[Source, Any]:
    import torch_tvm

    options = {**_options(command.option), **({"database": command.database} if command.database else {})}
    started = time.perf_counter()
    source, frontend, target, module = _imported(command)
    seconds = time.perf_counter() - started
    with warnings.catch_warnings(), _step(f"compiling {source.name}"):
        warnings.simplefilter("ignore", torch_tvm.FallbackWarning)
        compiled = torch_tvm.compile(
            module,
            target=target,
            fallback=not command.no_fallback,
            options=options,
        )
    compiled.report.frontend = frontend
    compiled.report.seconds = {**compiled.report.seconds, "import": seconds}
    return source, compiled


# -- commands ------------------------------------------------------------------------------------------------


def _import(command: argparse.Namespace) -> int:
    source = _source(command)
    frontends = _frontends(command.via, source)
    if command.diff and len(frontends) < 2:
        raise InvalidInput("a comparison needs two importers", subject="--diff", advice="name them: --via fx,lazy")
    if command.output and len(frontends) > 1:
        raise InvalidInput("one file holds one module", subject="-o", advice="name one importer: --via fx")
    _check_extension(command.output, (".mlir", ".mlirbc"))
    modules = {}
    for frontend in frontends:
        with _step(f"importing {source.name} by {frontend}"):
            modules[frontend] = source.module(frontend)
    if command.diff:
        return _differences(command, modules)
    if command.output:
        modules[frontends[0]].save(command.output)
        return 0
    heads = {frontend: f"// via {frontend}\n" if len(frontends) > 1 else "" for frontend in frontends}
    texts = {frontend: module.asm(elide=True) for frontend, module in modules.items()}
    _say(command, {"modules": texts}, [heads[frontend] + text for frontend, text in texts.items()])
    return 0


def _differences(command: argparse.Namespace, modules: dict[str, TorchModule]) -> int:
    from torch_tvm.dialect.structure import difference

    first, *others = modules
    lines, found = [], {}
    for other in others:
        found[other] = difference(modules[first], modules[other])
        if found[other]:
            lines += [f"--- {first}", f"+++ {other}", *found[other][2:]]
        else:
            lines.append(f"{first} and {other} give the same program")
    _say(command, {"first": first, "differences": found}, lines)
    return int(any(found.values()))


def _compile(command: argparse.Namespace) -> int:
    _check_extension(command.output, (".ttvm", ".so"))
    for option in ("targets", "originals"):
        if getattr(command, option) and not (command.output or "").endswith(".ttvm"):
            raise InvalidInput("it is for .ttvm files", subject=f"--{option}", advice="add -o model.ttvm")
    if command.linker and not command.output:
        raise InvalidInput("nothing is linked without a file", subject="--linker", advice="add -o model.so")
    source, compiled = _compiled(command)
    report = compiled.report
    seconds = sum(report.seconds.values())
    if command.output:
        with _step(f"writing {command.output}"):
            if command.output.endswith(".so"):
                compiled.export_library(command.output, linker=command.linker)
            else:
                targets = [name.strip() for name in command.targets.split(",") if name.strip()] or None
                runs_here = not compiled.parts().code.obstacle
                sample = source.arguments() if runs_here else None
                compiled.save(
                    command.output,
                    targets=targets,
                    originals=command.originals,
                    sample_args=sample,
                    linker=command.linker,
                )
    line = (
        f"{len(report.kernels)} kernels, {len(report.fallbacks)} ops in PyTorch, "
        f"compiled in {seconds:.2f} s for {report.target}"
    )
    _say(command, {**report.to_dict(), "output": command.output}, [line])
    return 0


def _run(command: argparse.Namespace) -> int:
    import torch
    from torch.utils import _pytree as pytree

    from torch_tvm.artifact.archive import SAMPLE_SEED
    from torch_tvm.tools.inputs.saved import difference_from_saved, loaded_with_arguments
    from torch_tvm.tools.inputs.tensors import check_output, described, write_tensors

    check_output(command.output)
    check_writable(command.output, "-o")
    is_saved = command.model.endswith(".ttvm")
    if command.check and not is_saved:
        raise InvalidInput("--check is for .ttvm files", advice="a model is compared with eager PyTorch without it")
    if is_saved:
        _refuse_compile_options(command)
        call, args, expected = loaded_with_arguments(command.model, command.input, command.seed, check=command.check)
    else:
        source, call = _compiled(command)
        args = source.arguments()
    if command.check:
        torch.manual_seed(SAMPLE_SEED)
    random_state = torch.get_rng_state()
    results, milliseconds = _timed(call, args)
    wrong, verdict = "", ""
    if not is_saved:
        wrong, verdict = _compared(source, results, args, random_state)
    elif expected is not None:
        wrong = difference_from_saved(results, expected[0])
        verdict = f"differs from what was saved: {wrong}" if wrong else "agrees with what was saved"
    leaves = pytree.tree_leaves(results)
    if command.output:
        write_tensors(command.output, leaves)
    texts = [described(leaf) for leaf in leaves]
    lines = [] if command.check else [f"result {index}: {text}" for index, text in enumerate(texts)]
    values: dict[str, Any] = {
        "results": texts,
        "milliseconds": round(milliseconds, 3),
        "verdict": verdict,
        "output": command.output,
    }
    _say(command, values, [*lines, *([verdict] if verdict else [f"ran in {milliseconds:.2f} ms"])])
    return int(bool(wrong))


def _refuse_compile_options(command: argparse.Namespace) -> None:
    """Raise for an option that says how to compile, of a file that is compiled."""
    for option, default in {
        "via": "",
        "target": "auto",
        "no_fallback": False,
        "option": [],
        "database": "",
    }.items():
        if getattr(command, option) != default:
            raise InvalidInput(
                f"{command.model} is compiled",
                subject=f"--{option.replace('_', '-')}",
                advice="give it to torch-tvm compile",
            )


def _timed(call: Callable[..., Any], args: Sequence[Any]) -> tuple[Any, float]:
    """Results for copies of the arguments, and how many milliseconds they took."""
    import torch

    given = [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args]
    started = time.perf_counter()
    results = call(*given)
    return results, (time.perf_counter() - started) * 1e3


def _compared(source: Source, results: Any, args: Sequence[Any], random_state: torch.Tensor) -> tuple[str, str]:
    """How results differ from eager PyTorch's, if they do, and the line that says so."""
    import torch

    from torch_tvm.tools.inputs.saved import difference_from_saved
    from torch_tvm.tools.numerics import assert_matches

    if source.program is None:
        return "", "a text has no eager program to compare with"
    program, runs = _in_either_precision(source.program), []

    def eager(*args: Any) -> Any:
        torch.set_rng_state(random_state)
        runs.append(program(*args))
        return runs[-1]

    wrong = ""
    try:
        with torch.no_grad():
            assert_matches(results, eager, args)
    except AssertionError as error:
        wrong = str(error)
    if not wrong and not torch.equal(torch.get_rng_state(), random_state):
        wrong = difference_from_saved(results, runs[0])  # double precision draws other numbers
    return wrong, f"differs from eager PyTorch: {wrong}" if wrong else "agrees with eager PyTorch"


def _in_either_precision(program: Any) -> Callable[..., Any]:
    """``program``, with parameters in double precision where its arguments are and it has parameters."""
    import copy

    import torch
    from torch.utils import _pytree as pytree

    def call(*args: Any) -> Any:
        floats = [a for a in pytree.tree_leaves(args) if isinstance(a, torch.Tensor) and a.is_floating_point()]
        is_double = bool(floats) and all(tensor.dtype == torch.float64 for tensor in floats)
        has_parameters = isinstance(program, torch.nn.Module) and next(program.parameters(), None) is not None
        return copy.deepcopy(program).double()(*args) if is_double and has_parameters else program(*args)

    return call


def _explain(command: argparse.Namespace) -> int:
    _check_extension(command.output, _PAGES)
    if command.model.endswith(".ttvm"):
        import torch_tvm

        if command.benchmark:
            raise InvalidInput("a saved module has no program to time kernels of", subject="--benchmark")
        _refuse_compile_options(command)
        compiled = torch_tvm.load(command.model)
    else:
        source, compiled = _compiled(command)
        if command.benchmark:
            with _step("timing kernels"):
                compiled.benchmark(*source.arguments())
    report = compiled.report
    if not command.output:
        _say(command, report.to_dict(), [str(report)])
        return 0
    if command.output.endswith(".html"):
        text = report.html(title=command.model)
    else:
        text = json.dumps(report.to_dict(), indent=1) if command.output.endswith(".json") else f"{report}\n"
    write_whole(command.output, text.encode())
    return 0


def _bench(command: argparse.Namespace) -> int:
    """One model: a call of ours and of eager, and our kernels."""
    import dataclasses
    import statistics

    import torch

    source, compiled = _compiled(command)
    args = source.arguments()
    with _step("timing kernels"):
        found = compiled.benchmark(*args, runs=command.runs)
    values: dict[str, Any] = {
        "model": source.name,
        "milliseconds": found.seconds * 1e3,
        "limits": dataclasses.asdict(found.limits),
        "kernels": [dataclasses.asdict(kernel) for kernel in found.kernels],
    }
    lines = [str(found)]
    if source.program is not None:
        times = []
        with torch.no_grad(), _step("timing eager PyTorch"):
            for _ in range(command.runs + 1):
                started = time.perf_counter()
                source.program(*args)
                times.append(time.perf_counter() - started)
        eager = statistics.median(times[1:])
        values["eager_milliseconds"] = eager * 1e3
        lines.append(f"\neager PyTorch: {eager * 1e3:.3f} ms, {eager / found.seconds:.2f} times as long")
    _say(command, values, lines)
    return 0


def _tune(command: argparse.Namespace) -> int:
    import torch_tvm

    if not command.database:
        raise InvalidInput(
            "a folder is needed to keep what is found",
            subject="--database",
            advice="--database tuned, for one",
        )
    options = _options(command.option)
    _, _, target, module = _imported(command)
    try:
        found = torch_tvm.tune(
            module,
            options=options,
            database=command.database,
            trials=command.trials,
            seconds=command.seconds,
            target=target,
            tracker=command.tracker,
        )
    except KeyboardInterrupt:
        print(f"torch-tvm: stopped; what was found is in {command.database}", file=sys.stderr)
        raise
    _say(command, found.to_dict(), [str(found)])
    return 0


def _doctor(command: argparse.Namespace) -> int:
    from torch_tvm.tools.doctor import printed, report

    with _step("looking"):
        found, is_well = report()
    _say(command, {"works": is_well, "findings": found}, [printed(found)])
    return int(not is_well)


def _completion(command: argparse.Namespace) -> int:
    print(script(_parser(), command.shell))
    return 0


def _bench_suites(arguments: Sequence[str]) -> int:
    from torch_tvm.tools.bench import main as bench

    return bench(arguments)


__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
