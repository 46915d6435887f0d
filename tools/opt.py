"""``torch-tvm-opt``: run passes and lowerings on textual Torch dialect, and print what they leave.

    torch-tvm-opt [FILE|-] [--pass-pipeline='builtin.module(…)'] [--PASS[='OPTION=VALUE …']]… [options]

Passes are torch-mlir's and this project's; pipelines and flags apply in the order of the command line.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_tvm.support.errors import ImportFailed, InvalidInput, TorchTvmError
from torch_tvm.support.files import read_bytes, write_whole

if TYPE_CHECKING:
    import tvm

    from torch_tvm.dialect.module import TorchModule
    from torch_tvm.passes.pipeline_text import Step

KINDS = ("mlir", "tvmscript", "llvm", "asm", "cuda", "opencl")
"""What ``--emit`` prints."""

_SPLIT = "// -----"
OPTIONS = {
    "--pass-pipeline=TEXT": "run a nested pipeline: builtin.module(func.func(cse),canonicalize)",
    "--torch-tvm-canonicalize": "run the named pipeline that ends in the canonical form",
    "--torch-to-relax": "then lower to Relax and print it as TVMScript; transforms may follow",
    "--relax-to-tir": "then optimise and schedule for --target, and print TIR as TVMScript",
    "--emit=KIND": "print the kernels instead: mlir (the default), tvmscript, llvm, asm, cuda or opencl",
    "--run[=HOW]": "run the module: compiled (the default) or interpreter; random arguments, or those of --input",
    "--check-against=eager": "run it compiled and in PyTorch (a text: op by op); exit code 1 where results differ",
    "--input=SPEC": "an argument: 1x3:f32, name:1x3:f32, or a .npz, .npy or .pt file",
    "--target=NAME": "what it is for: host (the default), an LLVM processor name, or sm_90 for --emit=cuda",
    "--list-passes": "print every pass of this project with what it does, before and after",
    "--dump-pass-pipeline": "print the passes that run to standard error",
    "--mlir-timing": "print the time of each pass to standard error",
    "--verify-diagnostics": "expect the errors that comments announce: // expected-error@+1 {{text}}",
    "--crash-reproducer=FILE": "if a pass crashes, leave the module before it and the command in FILE",
    "--verify-each": "verify the module after each pass",
    "--mlir-print-ir-after-all": "print the module to standard error after each pass",
    "--mlir-print-debuginfo": "print locations",
    "--mlir-elide-resource-strings-if-larger=N": "leave out weights of more than N characters",
    "--split-input-file": f"treat each part of the input between lines '{_SPLIT}' as a module",
    "-o FILE": "write to a file instead of standard output",
    "-h, --help": "this text",
}
_SWITCHES = {
    "verify-each",
    "mlir-print-ir-after-all",
    "mlir-print-debuginfo",
    "split-input-file",
    "torch-to-relax",
    "relax-to-tir",
    "list-passes",
    "dump-pass-pipeline",
    "mlir-timing",
    "verify-diagnostics",
    "help",
}
_VALUES = {
    "pass-pipeline",
    "target",
    "mlir-elide-resource-strings-if-larger",
    "emit",
    "check-against",
    "input",
    "crash-reproducer",
    "o",
}
_CHOICES = {"emit": KINDS, "check-against": ("eager",), "run": ("compiled", "interpreter")}


_PROGRAMS = (".pt", ".pt2", ".onnx")
"""Files of programs, which an importer makes a module of."""


class _Different(Exception):
    """What was printed of a run whose results are not those that it was checked against."""


@dataclass
class Command:
    """A parsed command line: the input, the passes and the transforms of Relax in order, and the options."""

    source: str = "-"
    passes: list[tuple[str, str]] = field(default_factory=list)
    transforms: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)
    inputs: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def parse_command(arguments: Sequence[str]) -> Command:
    """Read a command line; :class:`InvalidInput` for one that cannot be meant."""
    command = Command()
    sources: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "-" or not argument.startswith("-"):
            sources.append(argument)
            continue
        name, has_value, value = argument.lstrip("-").partition("=")
        name = {"h": "help"}.get(name, name)
        if name == "run":
            _take_value(command, name, value if has_value else "compiled")
        elif name in _SWITCHES:
            if has_value:
                raise InvalidInput(f"--{name} takes no value")
            command.switches.add(name)
        elif name in _VALUES:
            if not has_value and not rest:
                raise InvalidInput(f"--{name} needs a value")
            _take_value(command, name, value if has_value else rest.pop(0))
        else:
            _add_pass(command, name, value)
    if len(sources) > 1:
        raise InvalidInput(f"one input at a time, got {', '.join(sources)}")
    command.source = sources[0] if sources else "-"
    kept = command.values.get("crash-reproducer", "")
    if kept and os.path.realpath(kept) == os.path.realpath(command.source):
        raise InvalidInput("the module before a crash would be written over the input", subject="--crash-reproducer")
    if "relax-to-tir" in command.switches:
        command.switches.add("torch-to-relax")
    return command


def _take_value(command: Command, name: str, value: str) -> None:
    if name == "pass-pipeline":
        _add_pass(command, name, value)
    elif name == "mlir-elide-resource-strings-if-larger" and not re.fullmatch("[0-9]{1,18}", value):
        raise InvalidInput(f"--{name} needs a number, got '{value}'")
    elif name in _CHOICES and value not in _CHOICES[name]:
        raise InvalidInput(f"--{name} does not know '{value}'", advice=f"one of {', '.join(_CHOICES[name])}")
    elif name == "input":
        command.inputs.append(value)
    else:
        command.values[name] = value


def _add_pass(command: Command, name: str, value: str) -> None:
    if "torch-to-relax" not in command.switches:
        command.passes.append((name, value))
        return
    from torch_tvm.transforms.pipeline import known

    if name not in known():
        raise InvalidInput(
            f"--{name} works on Torch dialect and comes after --torch-to-relax",
            advice="put passes before --torch-to-relax",
        )
    command.transforms.append((name, value))


# -- running ---------------------------------------------------------------------------------------------


def run(arguments: Sequence[str]) -> int:
    """The command in this process: prints, and returns 0, 1 for a difference or a failure, 2 for wrong input."""
    try:
        command = parse_command(arguments)
        for switch, text in (("help", help_text), ("list-passes", passes_text)):
            if switch in command.switches:
                return _write(f"{text()}\n", None)
        data = _read(command.source, command.inputs)
    except TorchTvmError as error:
        return _report(error)
    except Exception as error:
        if os.environ.get("TORCH_TVM_TRACEBACK"):
            raise
        return _report_internal(error)
    outputs, code = [], 0
    for part, is_whole in _parts(data, "split-input-file" in command.switches):
        try:
            if "verify-diagnostics" in command.switches:
                _verify_diagnostics(command, part, is_whole)
                continue
            outputs.append(_process(command, part, is_whole))
        except _Different as error:
            outputs.append(str(error))
            code = max(code, 1)
        except TorchTvmError as error:
            code = max(code, _report(error, part if isinstance(part, str) else ""))
        except Exception as error:
            if os.environ.get("TORCH_TVM_TRACEBACK"):
                raise
            code = max(code, _report_internal(error))
    return _write(f"\n{_SPLIT}\n\n".join(outputs), command.values.get("o")) or code


def _read(source: str, inputs: Sequence[str] = ()) -> str | bytes:
    from torch_tvm.dialect.parse import decode
    from torch_tvm.importing import is_graph_file, read_graph_file

    if source.endswith(_PROGRAMS):
        from torch_tvm.tools.inputs.sources import find

        found = find(source, specs=inputs)
        return found.module(found.frontends[0]).asm(elide=False, locations=True)
    if is_graph_file(source):
        return read_graph_file(source).asm(elide=False, locations=True)
    return decode(sys.stdin.buffer.read() if source == "-" else read_bytes(source), source)


def _is_made(source: str) -> bool:
    """Whether the module's text is in no file: it came by standard input, or an importer made it."""
    return source == "-" or source.endswith((".ts", ".ltc", *_PROGRAMS))


def _parts(data: str | bytes, splits: bool) -> list[tuple[str | bytes, bool]]:
    """The modules of the input, each with empty lines in front so that line numbers stay true."""
    if not splits or isinstance(data, bytes):
        return [(data, True)]
    parts: list[tuple[str | bytes, bool]] = []
    lines: list[str] = []
    for number, line in enumerate(data.split("\n")):
        if line.strip() == _SPLIT:
            parts.append(("\n".join(lines), False))
            lines = [""] * (number + 1)
        else:
            lines.append(line)
    return [*parts, ("\n".join(lines), False)]


def _write(text: str, path: str | None) -> int:
    try:
        if path is None or path == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            write_whole(path, text.encode())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InvalidInput as error:
        return _report(error)
    return 0


def _process(command: Command, data: str | bytes, is_whole: bool) -> str:
    from torch_tvm.dialect.parse import read_module

    lowers = "torch-to-relax" in command.switches
    module = read_module(data, command.source, on_disk=is_whole and not _is_made(command.source), needs_state=lowers)
    module = _run_passes(command, module)
    if "mlir-timing" in command.switches:
        _print_times(command)
    if "run" in command.values or "check-against" in command.values:
        return _run_module(command, module)
    if command.values.get("emit", "mlir") != "mlir":
        from torch_tvm.tools.emit import emitted

        _note_progress(f"--emit={command.values['emit']}")
        return emitted(module, command.values["emit"], command.values.get("target", "host"))
    if lowers:
        return _lower(command, module)
    limit = command.values.get("mlir-elide-resource-strings-if-larger")
    text: str = module.mlir.operation.get_asm(
        enable_debug_info="mlir-print-debuginfo" in command.switches,
        large_resource_limit=None if limit is None else int(limit),
    )
    return text if text.endswith("\n") else text + "\n"


def _run_module(command: Command, module: TorchModule) -> str:
    """What the results are, and whether those of compiled code are those of PyTorch's ops."""
    import torch

    import torch_tvm
    from torch_tvm.passes.pipeline import canonicalize
    from torch_tvm.tools.inputs.tensors import described

    _note_progress("--run")
    module = canonicalize(module)
    if "check-against" in command.values:
        return _checked(command, module)
    args = _arguments(command, module)
    with torch.no_grad():
        is_compiled = command.values["run"] == "compiled"
        results = torch_tvm.compile(module)(*args) if is_compiled else module(*args)
    leaves = torch.utils._pytree.tree_leaves(results)
    return "".join(f"result {index}: {described(leaf)}\n{leaf}\n" for index, leaf in enumerate(leaves))


def _checked(command: Command, module: TorchModule) -> str:
    """Whether compiled code gives what the program does in eager PyTorch, or a text's ops do one by one."""
    from torch_tvm.debug.compare import both_results, error_of, limit_of
    from torch_tvm.tools.inputs.tensors import described

    args, reference = _eager(command, module)
    found, expected = both_results(module, args, "auto", None, reference)
    name = "eager" if reference else "the ops one by one (the input has no eager program)"
    if len(found) != len(expected):
        raise _Different(f"{len(found)} results, {name} gives {len(expected)}\n")
    lines = []
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        error, limit = error_of(ours, theirs), limit_of(theirs, None)
        verdict = f"agrees with {name}" if error <= limit else f"differs from {name}: error {error:.3g}"
        lines.append(f"result {index}: {described(ours)}: {verdict}\n")
    text = "".join(lines)
    if "differs" in text:
        raise _Different(text)
    return text


def _eager(command: Command, module: TorchModule) -> tuple[list[Any], Callable[..., list[Any]] | None]:
    """Flat arguments, and what gives the flat results of the program that the module was made of in PyTorch, if any."""
    import torch
    from torch.utils import _pytree as pytree

    from torch_tvm.tools.inputs.sources import find

    if command.source.endswith((".pt", ".pt2")):
        found = find(command.source, specs=command.inputs)
        program, args = found.program, found.arguments()
    elif command.source.endswith(".ts"):
        graph = torch._C.parse_ir(read_bytes(command.source).decode(), parse_tensor_constants=True)
        program, args = (
            torch._C._create_function_from_graph("graph", graph),
            tuple(_arguments(command, module)),
        )
    else:
        return _arguments(command, module), None
    leaves, nesting = pytree.tree_flatten(args)

    def run(leaves: list[Any]) -> list[Any]:
        assert program is not None
        results = program(*pytree.tree_unflatten(leaves, nesting))
        return [leaf for leaf in pytree.tree_leaves(results) if leaf is not None]

    return leaves, run


def _arguments(command: Command, module: TorchModule) -> list[Any]:
    """The arguments of ``--input``, or random ones."""
    from torch_tvm.dialect.types import TensorSpec, parse_tensor_type
    from torch_tvm.tools.inputs.tensors import given_tensors, in_order, random_tensor

    if command.inputs:
        return list(in_order(given_tensors(command.inputs), module.signature.names))
    inputs = module.main.type.inputs
    kinds = [parse_tensor_type(kind) for kind in inputs[: len(inputs) - len(module.state)]]
    found = []
    for index, kind in enumerate(kinds):
        if kind is None or kind.shape is None or kind.dtype is None:
            raise InvalidInput(f"argument {index} is no tensor of known rank", advice="give it: --input=2x3:f32")
        found.append(random_tensor(TensorSpec(kind.shape, kind.dtype), index))
    return found


_EXPECTED = re.compile(r"//\s*expected-error(?:@([+-]?\d+))?\s*\{\{(.*?)\}\}")


def _verify_diagnostics(command: Command, data: str | bytes, is_whole: bool) -> None:
    """Raise unless the errors of a module are those that its comments announce, at their lines."""
    lines = data.split("\n") if isinstance(data, str) else []
    wanted = [
        (number + (int(found.group(1)) if found.group(1) else 0), found.group(2))
        for number, line in enumerate(lines, 1)
        for found in _EXPECTED.finditer(line)
    ]
    try:
        _process(command, data, is_whole)
        text, line = "", 0
    except TorchTvmError as error:
        place = re.search(r":(\d+)(?::\d+)?: ", str(error))
        text, line = (
            str(error),
            error.location.line if error.location else int(place.group(1)) if place else 0,
        )
    for number, expected in wanted:
        if expected not in text:
            raise InvalidInput(f'{command.source}:{number}: expected error "{expected}" was not produced')
        if line and line != number:
            raise InvalidInput(f'{command.source}:{line}: expected error "{expected}" at line {number}')
    if text and not wanted:
        raise InvalidInput(f"unexpected error: {text}")


def _before_step(command: Command, module: TorchModule, name: str, text: str) -> None:
    """What is noted before a pass runs: its name, the time, and the module for the case that it crashes."""
    _note_progress(name)
    command.seconds[f"{len(command.seconds)} {name}"] = time.perf_counter()
    if "dump-pass-pipeline" in command.switches:
        print(text, file=sys.stderr)
    file = command.values.get("crash-reproducer")
    if file:
        again = f"// torch-tvm-opt {shlex.quote(file)} --{text}\n"
        write_whole(file, (again + module.asm(elide=False)).encode())


def _before_pass(command: Command, module: TorchModule, step: Step) -> None:
    _before_step(command, module, step.name, _flag(step))


def _print_times(command: Command) -> None:
    marks = [*command.seconds.items(), ("", time.perf_counter())]
    spent = [(name.partition(" ")[2], after - start) for (name, start), (_, after) in itertools.pairwise(marks)]
    total = sum(seconds for _, seconds in spent) or 1.0
    print(f"{'seconds':>10}  {'share':>6}  pass", file=sys.stderr)
    for name, seconds in spent:
        print(f"{seconds:10.4f}  {seconds / total:6.1%}  {name}", file=sys.stderr)


def _run_passes(command: Command, module: TorchModule) -> TorchModule:
    from torch_tvm.passes.pipeline_text import run_pipeline, single_pass

    print_after = sys.stderr if "mlir-print-ir-after-all" in command.switches else None
    for name, value in command.passes:
        _note_progress(name)
        if name == "torch-tvm-canonicalize":
            _before_step(command, module, name, name)
            _canonicalize(module, value)
            if print_after is not None:
                print(f"// -----// IR Dump After {name} //----- //\n{module.mlir}", file=print_after)
            continue
        context = module.mlir.context
        steps = value if name == "pass-pipeline" else [single_pass(name, value, context)]
        run_pipeline(
            module,
            steps,
            verify_each="verify-each" in command.switches,
            print_after=print_after,
            before_each=functools.partial(_before_pass, command, module),
        )
        module = _with_new_literals(module)
    file = command.values.get("crash-reproducer")
    if file and command.passes:
        Path(file).unlink(missing_ok=True)  # nothing crashed
    return module


def _flag(step: Step) -> str:
    """A step as an argument of this command, without the dashes."""
    options = str(step.python_pass).partition("{")[2].removesuffix("}") if step.python_pass else step.options
    return f"{step.name}={shlex.quote(options)}" if options else step.name


def _with_new_literals(module: TorchModule) -> TorchModule:
    """The module with the literals that a pass made among its weights: only its text has their bytes."""
    from torch_tvm.dialect import view

    names = {view.resource_name(op) for op in view.walk(module.mlir) if op.name == "torch.vtensor.literal"}
    if names - {None} <= module.weights.keys():
        return module
    again = type(module).read(str(module.mlir), "-", needs_state=False)
    again.state, again.signature = module.state, module.signature
    return again


def _canonicalize(module: TorchModule, value: str) -> None:
    from torch_tvm.passes.pipeline import canonicalize

    if value:
        raise InvalidInput("--torch-tvm-canonicalize takes no value")
    canonicalize(module)


def _lower(command: Command, module: TorchModule) -> str:
    from torch_tvm.lowering.module import lower

    _note_progress("torch-to-relax")
    lowered = lower(module)
    target = _target(command.values.get("target", "host"))
    mod = _transformed(command, lowered.mod, target)
    if "relax-to-tir" in command.switches:
        from torch_tvm.backends import optimize, schedule

        _note_progress("relax-to-tir")
        mod = schedule(optimize(mod, target), target)[0]
    return f"{mod.script()}\n"


def _transformed(command: Command, mod: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """The module after the transforms that the command names, by what the pipeline runs itself."""
    from torch_tvm.support.passes import split_options
    from torch_tvm.transforms.pipeline import known, run

    transforms = [known()[name].from_options(split_options(value)) for name, value in command.transforms]
    for each in transforms:
        _note_progress(each.name)
        mod = run(mod, target, [each])
        if "mlir-print-ir-after-all" in command.switches:
            print(f"# -----# IR Dump After {each.name} #----- #\n{mod.script()}", file=sys.stderr)
    return mod


def _target(name: str) -> tvm.target.Target:
    from torch_tvm.schedules.target import host_target

    return host_target() if name == "host" else _named_target(name)


def _named_target(processor: str) -> tvm.target.Target:
    import tvm
    from tvm.target import codegen

    known = [str(cpu) for cpu in codegen.llvm_get_cpu_archlist(tvm.target.Target({"kind": "llvm"}))]
    if processor not in known:
        close = difflib.get_close_matches(processor, known, 3) or known
        raise InvalidInput(f"'{processor}' is no LLVM processor name; there are {', '.join(close)}")
    return tvm.target.Target({"kind": "llvm", "mcpu": processor})


# -- messages ---------------------------------------------------------------------------------------------


def _report(error: TorchTvmError, text: str = "") -> int:
    from torch_tvm.dialect.reader import caret
    from torch_tvm.passes.pipeline_text import PassFailed

    shown = caret(text, error.location.line, error.column) if isinstance(error, PassFailed) and error.location else ""
    print(f"torch-tvm-opt: error: {error}{shown}", file=sys.stderr)
    return 2 if isinstance(error, (InvalidInput, ImportFailed, PassFailed)) else 1


def _report_internal(error: Exception) -> int:
    first = (str(error).strip() or "no message").splitlines()[0]
    print(
        f"torch-tvm-opt: internal error in {_progress[-1]}: {type(error).__name__}: {first}\n"
        "  set TORCH_TVM_TRACEBACK=1 to see where",
        file=sys.stderr,
    )
    return 1


def help_text() -> str:
    """Usage, options and every pass with the first line of its documentation."""
    from torch_tvm.passes.base import registry
    from torch_tvm.transforms.pipeline import known

    ours = {f"--{name}": found.summary() for name, found in sorted(registry().items())}
    transforms = {f"--{name}": found.summary() for name, found in sorted(known().items())}
    sections = {
        "Options": OPTIONS,
        "Passes of torch_tvm": ours,
        "Transforms of Relax, after --torch-to-relax": transforms,
        "Passes of torch-mlir": _torch_mlir_passes(),
    }
    lines = [(__doc__ or "").strip()]
    for title, rows in sections.items():
        lines.append(f"\n{title}:")
        lines += [f"  {name:<44} {text}" for name, text in rows.items()]
    return "\n".join(lines)


def passes_text() -> str:
    """Every pass of this project with its options and its whole documentation."""
    from torch_tvm.passes.base import registry
    from torch_tvm.transforms.pipeline import known

    lines = []
    for title, found in (("Passes over the Torch dialect", registry()), ("Transforms of Relax", known())):
        lines.append(f"{title}:\n")
        for name, each in sorted(found.items()):
            options = ", ".join(each.option_types())
            lines.append(f"  --{name}" + (f"  (options: {options})" if options else ""))
            lines += [f"      {line}".rstrip() for line in (inspect.getdoc(each) or "").splitlines()]
            lines.append("")
    return "\n".join(lines).rstrip()


def _torch_mlir_passes() -> dict[str, str]:
    """Name and summary of torch-mlir's Torch passes and of MLIR's cleanups, from its own help."""
    from torch_tvm.dialect.mlir import OPT_TOOL

    if not OPT_TOOL.exists():
        return {"(any)": f"the list is in {OPT_TOOL.name} --help, which this wheel of torch-mlir lacks"}
    shown = subprocess.run([str(OPT_TOOL), "--help"], capture_output=True, text=True, check=False).stdout
    found = {}
    for line in shown.splitlines():
        name, dash, text = line.strip().partition("-   ")
        name = name.strip().partition("=")[0]
        if dash and name.startswith(("--torch", "--canonicalize", "--cse", "--inline", "--symbol-dce")):
            found[name] = text.strip()
    return found


# -- the process ---------------------------------------------------------------------------------------------

_progress = ["reading the command line"]
_progress_file: list[int] = []


def _note_progress(name: str) -> None:
    _progress.append(name)
    for descriptor in _progress_file:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, name.encode(), 0)


def main() -> None:
    """Entry point. The work is done in a child process, so that a crash in C++ ends in a message too."""
    arguments = sys.argv[1:]
    if not hasattr(os, "fork"):
        sys.exit(run(arguments))
    sys.exit(guarded(lambda: run(arguments)))


def guarded(work: Callable[[], int]) -> int:
    """Run ``work`` in a child process; its exit code, or 1 and a message that names the pass that crashed."""
    with tempfile.TemporaryFile() as progress:
        child = os.fork()
        if child == 0:
            _progress_file.append(progress.fileno())
            code = 1
            try:
                code = work()
                sys.stdout.flush()
            except KeyboardInterrupt:
                code = 130
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        try:
            _, status = os.waitpid(child, 0)
        except KeyboardInterrupt:
            os.waitpid(child, 0)
            return 130
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return code
        progress.seek(0)
        name = progress.read().decode() or "reading the input"
        print(
            f"torch-tvm-opt: error: {name} crashed (signal {-code}); the input is at fault or it is a bug",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    main()
