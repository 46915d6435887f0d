"""One case by one frontend in one configuration: captured, compiled or interpreted, run, and compared with eager."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from torch_tvm.support.errors import InternalError, TorchTvmError, UnsupportedOp
from torch_tvm.tools.e2e.case import Case, Program, assert_like, function_of

GOOD = ("pass", "xfail", "skip")
VERDICTS = (*GOOD, "unsupported", "refused", "wrong", "internal", "error", "crash", "hang", "xpass")
"""Equal to eager; refused as expected; cannot run on this machine. What is bad: no kernel (with ``--no-fallback``); an
error of ours; other numbers; a bug of ours, by its name, and without; the process ended, or did not; passed
unexpectedly."""


@dataclass(frozen=True)
class Result:
    """What came of a case; ``text`` is the reason, ``ir`` the program of one that failed, where it was asked for."""

    verdict: str
    text: str = ""
    seconds: float = 0.0
    ir: str = ""


class Skipped(Exception):
    """What cannot run here, and why."""


def run(case: Case, frontend: str, config: str, *, fallback: bool = True, shows_ir: bool = False) -> Result:
    """Run a case in this process. Nothing is raised: see :data:`VERDICTS`."""
    started = time.perf_counter()
    verdict, text = _tried(case, frontend, config, fallback)
    reason = case.refused.get(frontend)
    if reason and verdict == "pass":
        verdict, text = "xpass", f"passes, though: {reason}"
    elif reason and verdict != "skip":
        verdict, text = "xfail", reason
    seconds = time.perf_counter() - started
    ir = _ir(case, frontend) if shows_ir and verdict not in GOOD else ""
    return Result(verdict, text, seconds, ir)


def _tried(case: Case, frontend: str, config: str, fallback: bool) -> tuple[str, str]:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            if case.run is not None:
                if config != "compiled":
                    return "skip", "these cases run compiled only"
                return case.run(frontend, fallback)
            assert case.program is not None
            text = _checked(case.program(), frontend, config, fallback)
        except Skipped as error:
            return "skip", str(error)
        except AssertionError as error:
            return "wrong", _lines(error)
        except UnsupportedOp as error:
            return "unsupported", _lines(error)
        except InternalError as error:
            return "internal", _lines(error)
        except TorchTvmError as error:
            return "refused", f"{type(error).__name__}: {_lines(error)}"
        except Exception as error:  # anything else is a bug, whoever's
            return "error", f"{type(error).__name__}: {_lines(error)}"
    hidden = [str(w.message) for w in warned if "a bug of torch_tvm" in str(w.message)]
    return ("internal", hidden[0][:600]) if hidden else ("pass", text)


def _lines(error: BaseException) -> str:
    return "\n".join((str(error).strip() or "no message").splitlines()[:8])[:1200]


def _checked(program: Program, frontend: str, config: str, fallback: bool) -> str:
    """Run every call of a program; what is worth saying of one that is right."""
    eager, ours = program.module, copy.deepcopy(program.module)
    with torch.no_grad():
        call, left = _callable(program, ours, frontend, config, fallback)
        for index, args in enumerate(program.calls):
            own, theirs = _copies(args), _copies(args)
            results = call(*own)
            what = f"call {index + 1}, result" if len(program.calls) > 1 else "result"
            if program.compare is not None:
                program.compare(results, args)
                continue
            assert_like(results, eager(*theirs), what)
            assert_like(own, theirs, what.replace("result", "argument"))
    return left


def _copies(args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.clone() for tensor in args)


def _callable(
    program: Program, module: nn.Module, frontend: str, config: str, fallback: bool
) -> tuple[Callable[..., Any], str]:
    """What to call in place of the module, and which ops of it run in PyTorch."""
    args = _copies(program.calls[0])
    if config == "interpreter":
        if frontend == "dynamo":
            raise Skipped("torch.compile runs compiled code only")
        nested = _nesting(program, frontend)
        return nested(_imported(program, module, frontend, args)), ""
    target = _target(config)
    if frontend == "dynamo":
        torch._dynamo.reset()
        options: dict[str, Any] = {} if fallback else {"fallback": False}
        options |= {} if target == "auto" else {"target": target}
        dynamic = program.dynamic_shapes is not None
        return torch.compile(module, backend="torch_tvm", dynamic=dynamic, options=options or None), ""
    import torch_tvm

    source, arguments, given = _source(program, module, frontend, args)
    compiled = torch_tvm.compile(source, arguments, frontend=frontend, target=target, fallback=fallback, **given)
    left = ", ".join(sorted({item.op for item in compiled.report.fallbacks}))
    return _nesting(program, frontend)(compiled), f"in PyTorch: {left}" if left else ""


def _target(config: str) -> Any:
    """The target of a configuration; skips where this machine has no such device."""
    if config == "compiled":
        return "auto"
    from torch_tvm.backends import backend_of
    from torch_tvm.support.errors import InvalidInput
    from torch_tvm.targets import resolve_target

    try:
        target = resolve_target(config)
    except InvalidInput as error:
        raise Skipped(error.problem) from error
    obstacle = backend_of(target).why_not_runnable(target)
    if obstacle:
        raise Skipped(f"this machine cannot run it: {obstacle}")
    return target


def _imported(program: Program, module: nn.Module, frontend: str, args: tuple[torch.Tensor, ...]) -> Any:
    import torch_tvm

    source, arguments, given = _source(program, module, frontend, args)
    if frontend == "fx":
        return torch_tvm.import_fx(source, arguments, **given)
    importer = torch_tvm.import_lazy if frontend == "lazy" else torch_tvm.import_torchscript
    return importer(source, arguments)


def _source(
    program: Program, module: nn.Module, frontend: str, args: tuple[torch.Tensor, ...]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A program as a frontend wants it, its example arguments, and keyword arguments for the rest."""
    from torch_tvm.dialect.types import TensorSpec

    shapes = program.dynamic_shapes
    if frontend == "torchscript":
        specs = args if shapes is None else tuple(
            TensorSpec(tuple(None if axis in varying else size for axis, size in enumerate(t.shape)), t.dtype)
            for t, varying in zip(args, shapes, strict=True)
        )  # fmt: skip
        if program.scripted:
            return torch.jit.script(function_of(module)), specs, {}
        return _traced(module, args), specs, {}
    if shapes is None or frontend != "fx":
        return module, args, {}
    named = (tuple(dict(axes) for axes in shapes),)  # they are *args
    takes_any = type(module).forward.__code__.co_flags & 4
    return module, args, {"dynamic_shapes": named if takes_any else named[0]}


def _traced(module: nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
    """A trace of the module, whose state is what it was before: tracing runs the program."""
    before = copy.deepcopy(module.state_dict())
    traced = torch.jit.trace(_Flat(module), args, check_trace=False)
    module.load_state_dict(before)
    return traced


class _Flat(nn.Module):
    """A program whose results are a flat tuple, as tracing wants them."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(pytree.tree_leaves(self.program(*tensors)))


def _nesting(program: Program, frontend: str) -> Callable[[Any], Callable[..., Any]]:
    """Gives the results of a traced program the nesting that eager's have."""
    if frontend != "torchscript" or program.scripted:
        return lambda call: call
    spec = pytree.tree_structure(copy.deepcopy(program.module)(*_copies(program.calls[0])))
    return lambda call: lambda *args: pytree.tree_unflatten(pytree.tree_leaves(call(*args)), spec)


def _ir(case: Case, frontend: str) -> str:
    """The canonical module of a case, or why there is none."""
    if case.program is None:
        return ""
    try:
        program = case.program()
        via = "fx" if frontend == "dynamo" else frontend
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(_imported(program, program.module, via, _copies(program.calls[0])).asm(elide=True))
    except Exception as error:  # what is shown is about another failure
        return f"// not imported: {type(error).__name__}: {_lines(error)}"


__all__ = ["GOOD", "VERDICTS", "Result", "run"]
