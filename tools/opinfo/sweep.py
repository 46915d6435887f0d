"""One operator of the database, by one frontend: compiled, and compared with eager."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.support.errors import InternalError, TorchTvmError, UnsupportedOp
from torch_tvm.tools.opinfo.samples import Case, cases, difference, eager_result, exact_result

FRONTENDS = ("fx", "torchscript", "lazy", "dynamo")
VERDICTS = tuple("agree,in PyTorch,uncaptured,unsupported,refused,wrong,internal,bare,dead,hang".split(","))
"""Compiled and equal; equal, with ops in PyTorch; what PyTorch's tracer cannot take; no kernel (without fallback);
refused by an error of ours that says so; other numbers; a bug of ours, by its name, and without; the process ended, or
did not."""

_BUNDLE = 16
"""Calls in one program."""


class Uncaptured(Exception):
    """PyTorch's own tracer fails."""


@dataclass
class Outcome:
    """What came of an operator's calls, by verdict; ``found`` says what was wrong with the first few."""

    verdicts: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def note(self, verdict: str, text: str = "") -> None:
        self.verdicts[verdict] += 1
        if text and len(self.found) < 4:
            self.found.append(f"{verdict}: {text}")


def swept(
    op: Any,
    dtype: torch.dtype,
    frontend: str,
    *,
    count: int,
    seed: int,
    fallback: bool,
    at: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Some samples of an operator. ``at`` is told what runs next: a call may end the process.

    Calls go into one program together; where that does not agree, each by itself.
    """
    outcome = Outcome()
    try:
        drawn = [case for case in cases(op, dtype, seed, count) if eager_result(case) is not None]
    except Exception:  # some samples need what is not there
        return outcome
    for start in range(0, len(drawn), _BUNDLE):
        bundle = drawn[start : start + _BUNDLE]
        at(" || ".join(f"{case.kind} {case.text[:160]}" for case in bundle))
        verdict, _ = _tried(bundle, frontend, fallback)
        if verdict == "agree":
            outcome.verdicts["agree"] += len(bundle)
            continue
        for case in bundle:
            at(f"{case.kind} {case.text}")
            verdict, text = _tried([case], frontend, fallback)
            outcome.note(verdict, f"{case.kind} {case.text[:200]}: {text}" if text else "")
    return outcome


class Bundle(torch.nn.Module):
    """Some calls in one program."""

    def __init__(self, bundle: Sequence[Case]) -> None:
        super().__init__()
        self.bundle = bundle

    def forward(self, *tensors: torch.Tensor) -> list[Any]:
        results, start = [], 0
        for case in self.bundle:
            results.append(case.function(*tensors[start : start + len(case.tensors)]))
            start += len(case.tensors)
        return results


def _copies(bundle: Sequence[Case]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.clone() for case in bundle for tensor in case.tensors)


def _tried(bundle: Sequence[Case], frontend: str, fallback: bool) -> tuple[str, str]:
    """The verdict on a program of these calls, and what is wrong with it."""
    program, left = Bundle(bundle), ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = _compiled(program, _copies(bundle), frontend, fallback)
            report = getattr(compiled, "report", None)
            left = ", ".join(sorted({item.op for item in report.fallbacks})) if report else ""
            hidden = [item.reason for item in report.fallbacks if "a bug of" in item.reason] if report else []
            torch.manual_seed(0)
            given, eager_given = _copies(bundle), _copies(bundle)
            expected = program(*eager_given)
            torch.manual_seed(0)
            results = compiled(*given)
    except Uncaptured as error:
        return "uncaptured", str(error)[:300]
    except UnsupportedOp as error:
        return "unsupported", str(error)[:300]
    except InternalError as error:
        return "internal", str(error)[:300]
    except TorchTvmError as error:
        return "refused", f"{type(error).__name__}: {str(error)[:300]}"
    except Exception as error:
        return "bare", f"{type(error).__name__}: {str(error)[:300]}"
    if hidden:
        return "internal", hidden[0][:300]
    is_transform = all(case.is_transform for case in bundle)
    mine, theirs = pytree.tree_leaves(results), pytree.tree_leaves(expected)
    wrong = difference(mine, theirs, is_transform)
    if wrong and len(bundle) == 1:
        wrong = difference(mine, theirs, is_transform, exact_result(bundle[0]))
    wrong = wrong or difference(list(given), list(eager_given))
    if wrong:
        return "wrong", wrong
    return ("in PyTorch", left) if left else ("agree", "")


def _compiled(
    program: torch.nn.Module, args: tuple[torch.Tensor, ...], frontend: str, fallback: bool
) -> Callable[..., Any]:
    import torch_tvm

    if frontend == "dynamo":
        torch._dynamo.reset()
        return torch.compile(program, backend="torch_tvm", dynamic=False, options={"fallback": fallback})
    if frontend == "torchscript":
        flat = lambda *tensors: tuple(pytree.tree_leaves(program(*tensors)))
        try:
            traced = torch.jit.trace(flat, args, check_trace=False)
        except Exception as error:
            raise Uncaptured(str(error)) from error
        return torch_tvm.compile(traced, args, fallback=fallback)
    return torch_tvm.compile(program, args, frontend=frontend, fallback=fallback)


__all__ = ["FRONTENDS", "VERDICTS", "Bundle", "Outcome", "Uncaptured", "swept"]
