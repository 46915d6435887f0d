"""``torch-tvm-opt``: run passes and lowerings on textual Torch dialect, and print what they leave.

    torch-tvm-opt [FILE|-] [--pass-pipeline='builtin.module(…)'] [--PASS[='OPTION=VALUE …']]… [options]

Passes are torch-mlir's and this project's; pipelines and flags apply in the order of the command line.
"""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch_tvm.support.errors import InvalidInput, TorchTvmError
from torch_tvm.support.files import read_bytes

if TYPE_CHECKING:
    import tvm

    from torch_tvm.dialect.module import TorchModule

_SPLIT = "// -----"
_OPTIONS = {
    "--pass-pipeline=TEXT": "run a nested pipeline: builtin.module(func.func(cse),canonicalize)",
    "--torch-tvm-canonicalize": "run the named pipeline that ends in the canonical form",
    "--torch-to-relax": "then lower to Relax and print it as TVMScript; transforms may follow",
    "--relax-to-tir": "then optimise and schedule for --target, and print TIR as TVMScript",
    "--target=NAME": "what is transformed and scheduled for: host (the default) or an LLVM processor name",
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
    "help",
}
_VALUES = {"pass-pipeline", "target", "mlir-elide-resource-strings-if-larger", "o"}


@dataclass
class Command:
    """A parsed command line: the input, the passes and the transforms of Relax in order, and the options."""

    source: str = "-"
    passes: list[tuple[str, str]] = field(default_factory=list)
    transforms: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)


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
        if name in _SWITCHES:
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
    if "relax-to-tir" in command.switches:
        command.switches.add("torch-to-relax")
    return command


def _take_value(command: Command, name: str, value: str) -> None:
    if name == "pass-pipeline":
        _add_pass(command, name, value)
    elif name == "mlir-elide-resource-strings-if-larger" and not value.isdigit():
        raise InvalidInput(f"--{name} needs a number, got '{value}'")
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
    """The command in this process: prints, and returns the exit code (0, or 1 after an error)."""
    try:
        command = parse_command(arguments)
        if "help" in command.switches:
            print(help_text())
            return 0
        data = _read(command.source)
    except TorchTvmError as error:
        return _report(error)
    outputs, code = [], 0
    for part, is_whole in _parts(data, "split-input-file" in command.switches):
        try:
            outputs.append(_process(command, part, is_whole))
        except TorchTvmError as error:
            code = _report(error, part if isinstance(part, str) else "")
        except Exception as error:
            if os.environ.get("TORCH_TVM_TRACEBACK"):
                raise
            code = _report_internal(error)
    return _write(f"\n{_SPLIT}\n\n".join(outputs), command.values.get("o")) or code


def _read(source: str) -> str | bytes:
    from torch_tvm.dialect.parse import decode
    from torch_tvm.importing import is_graph_file, read_graph_file

    if is_graph_file(source):
        return read_graph_file(source).asm(elide=False, locations=True)
    return decode(sys.stdin.buffer.read() if source == "-" else read_bytes(source), source)


def _is_made(source: str) -> bool:
    """Whether the module's text is in no file: it came by standard input, or an importer made it."""
    return source == "-" or source.endswith((".ts", ".ltc"))


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
            Path(path).write_text(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError) as error:
        return _report(InvalidInput(f"cannot write '{path}': {getattr(error, 'strerror', None) or error}"))
    return 0


def _process(command: Command, data: str | bytes, is_whole: bool) -> str:
    from torch_tvm.dialect.parse import read_module

    lowers = "torch-to-relax" in command.switches
    module = read_module(
        data, command.source, on_disk=is_whole and not _is_made(command.source), needs_state=lowers
    )
    module = _run_passes(command, module)
    if lowers:
        return _lower(command, module)
    limit = command.values.get("mlir-elide-resource-strings-if-larger")
    text: str = module.mlir.operation.get_asm(
        enable_debug_info="mlir-print-debuginfo" in command.switches,
        large_resource_limit=None if limit is None else int(limit),
    )
    return text if text.endswith("\n") else text + "\n"


def _run_passes(command: Command, module: TorchModule) -> TorchModule:
    from torch_tvm.passes.pipeline_text import run_pipeline, single_pass

    print_after = sys.stderr if "mlir-print-ir-after-all" in command.switches else None
    for name, value in command.passes:
        _note_progress(name)
        if name == "torch-tvm-canonicalize":
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
            before_each=lambda step: _note_progress(step.name),
        )
        module = _with_new_literals(module)
    return module


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

    shown = (
        caret(text, error.location.line, error.column)
        if isinstance(error, PassFailed) and error.location
        else ""
    )
    print(f"torch-tvm-opt: error: {error}{shown}", file=sys.stderr)
    return 1


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
        "Options": _OPTIONS,
        "Passes of torch_tvm": ours,
        "Transforms of Relax, after --torch-to-relax": transforms,
        "Passes of torch-mlir": _torch_mlir_passes(),
    }
    lines = [(__doc__ or "").strip()]
    for title, rows in sections.items():
        lines.append(f"\n{title}:")
        lines += [f"  {name:<44} {text}" for name, text in rows.items()]
    return "\n".join(lines)


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
