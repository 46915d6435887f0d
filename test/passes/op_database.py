"""Samples of PyTorch's own operator database through import, canonicalisation and, if asked, a compiled module.

Run as a script it takes names of operators as JSON on stdin and prints one JSON line for each: what differs from eager.
Every operator runs in a process of its own, for one that crashes or hangs there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import types
import unittest
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
)  # fmt: skip
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
SPECIAL = (0.0, -0.0, 1.0, -1.0, float("inf"), -float("inf"), float("nan"), 1e-30, 1e4)
WHOLE = (0, 1, -1, 2, -3, 7, -(2**31), 2**31 - 1)
MAX_ELEMENTS = 4096


def database() -> list[Any]:
    """PyTorch's operators with their samples; of what its test tools import we have no need."""
    stub = types.ModuleType("expecttest")
    stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    stub.assert_expected_inline = None  # type: ignore[attr-defined]
    sys.modules.setdefault("expecttest", stub)
    from torch.testing._internal.common_methods_invocations import op_db

    return list(op_db)


@dataclass
class Case:
    """A call of an operator: the tensors among its arguments, and the function of them."""

    dtype: torch.dtype
    kind: str
    tensors: list[torch.Tensor]
    function: Callable[..., Any]
    text: str


def cases(op: Any, dtype: torch.dtype, seed: int, count: int) -> Iterator[Case]:
    """Some of the samples, and each of those once more with zeros, infinities, NaN and extremes sprinkled in."""
    r = random.Random(f"{seed} {op.full_name} {dtype}")
    torch.manual_seed(seed)
    samples = []
    for index, sample in enumerate(op.sample_inputs("cpu", dtype, requires_grad=False)):
        if index > 80:
            break
        leaves = pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
        if sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor)) <= MAX_ELEMENTS:
            samples.append(sample)
    for sample in r.sample(samples, min(count, len(samples))):
        leaves, spec = pytree.tree_flatten(((sample.input, *sample.args), dict(sample.kwargs)))
        tensors = [leaf.detach() for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if not tensors:
            continue
        function = _function(op, leaves, spec)
        text = f"{sample.input!s:.120} {sample.args!s:.200} {sample.kwargs!s:.200}".replace("\n", " ")
        yield Case(dtype, "sample", tensors, function, text)
        yield Case(dtype, "special", [_sprinkled(t, r) for t in tensors], function, text)


def _function(op: Any, leaves: list[Any], spec: Any) -> Callable[..., Any]:
    def call(*tensors: torch.Tensor) -> Any:
        remaining = iter(tensors)
        filled = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(filled, spec)
        return op.op(*args, **kwargs)

    return call


def _sprinkled(tensor: torch.Tensor, r: random.Random) -> torch.Tensor:
    if tensor.dtype.is_complex or tensor.dtype == torch.bool or tensor.numel() == 0:
        return tensor
    is_index = not tensor.dtype.is_floating_point and bool((tensor >= 0).all())
    if is_index:
        return tensor
    changed = tensor.clone().contiguous()
    flat = changed.view(-1)
    values = SPECIAL if tensor.dtype.is_floating_point else WHOLE
    for position in range(flat.numel()):
        if r.random() < 0.3:
            value = r.choice(values)
            flat[position] = (
                value if tensor.dtype.is_floating_point else value % 2 ** (8 * tensor.element_size() - 1)
            )
    return changed


def difference(ours: Any, eager: Any) -> str | None:
    """How two results differ, if they do."""
    mine, spec = pytree.tree_flatten(ours)
    theirs, wanted = pytree.tree_flatten(eager)
    if len(mine) != len(theirs):
        return f"nesting {spec} for {wanted}"
    for index, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        if not isinstance(b, torch.Tensor):
            if isinstance(a, torch.Tensor) or type(a) is not type(b) or (a != b and a == a):
                return f"{index}: {a!r} for {b!r}"
            continue
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{index}: {a.dtype}{list(a.shape)} for {b.dtype}{list(b.shape)}"
        if a.dtype.is_complex:
            a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
        if a.dtype.is_floating_point:
            limit = TOLERANCE.get(a.dtype, 0.3)
            x, y = a.double(), b.double()
            special = (x.isnan() != y.isnan()) | ((x.isinf() | y.isinf()) & (x != y))
            wrong = special | ((x - y).abs() > limit * (1 + y.abs()))
        else:
            wrong = a != b
        if bool(wrong.any()):
            pairs = list(zip(a[wrong].tolist(), b[wrong].tolist(), strict=True))[:3]
            return f"{index}: {int(wrong.sum())} of {wrong.numel()}: " + ", ".join(
                f"{p} for {q}" for p, q in pairs
            )
    return None


@dataclass
class Findings:
    """What one operator gave: how many calls agreed, and the others by their stage."""

    agreed: int = 0
    differ: list[dict[str, str]] = field(default_factory=list)


def _eager(case: Case) -> Any:
    """Eager's result; ``None`` where it raises or is not a function of its arguments."""
    copies = lambda: [tensor.clone() for tensor in case.tensors]
    try:
        torch.manual_seed(0)
        first = case.function(*copies())
        torch.manual_seed(1)
        second = case.function(*copies())
    except Exception:  # an operator refuses a dtype or a value in its own way
        return None
    leaves = pytree.tree_leaves(first)
    if not leaves or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return None
    if any(leaf.layout != torch.strided or leaf.is_quantized for leaf in leaves):
        return None
    return None if difference(second, first) else first


def check(case: Case, compiles: bool) -> dict[str, str] | None:
    """The stage at which a call stops to be eager's, and how; ``None`` when all are, or where there is nothing to compare."""
    from torch_tvm.dialect import view
    from torch_tvm.importers.torchscript import import_torchscript
    from torch_tvm.passes.pipeline import canonicalize

    eager = _eager(case)
    if eager is None:
        return None
    copies = lambda: tuple(tensor.clone() for tensor in case.tensors)
    stage, text = "import", ""
    try:
        traced = torch.jit.trace(lambda *t: case.function(*t), copies(), check_trace=False)
        module = import_torchscript(traced, copies())
        if any(_is_arbitrary(view.op_name(op)) for op in view.walk(module.main)):
            return None
        found = difference(module(*copies()), eager)
        if found is None:
            stage = "canonical"
            module = canonicalize(module)
            text = str(module)
            found = difference(module(*copies()), eager)
        if found is None and compiles:
            stage = "compiled"
            import torch_tvm

            found = difference(torch_tvm.compile(module)(*copies()), eager)
    except Exception as error:
        found = f"{type(error).__name__}: {str(error)[:300]}"
        stage += " error"
    if found is None:
        return None
    return {
        "stage": stage,
        "dtype": str(case.dtype),
        "kind": case.kind,
        "found": found,
        "sample": case.text,
        "module": text[:3000],
    }


def _is_arbitrary(name: str) -> bool:
    """Whether an op draws numbers or leaves memory as it finds it."""
    from torch_tvm.passes.effects import is_random

    return is_random(name) or "empty" in name


def findings(op: Any, seed: int, count: int, compiles: bool, dtypes: tuple[torch.dtype, ...]) -> Findings:
    result = Findings()
    for dtype in dtypes:
        if dtype not in op.dtypes:
            continue
        try:
            drawn = list(cases(op, dtype, seed, count))
        except Exception:  # some samples need what is not there
            continue
        for case in drawn:
            print(json.dumps({"at": f"{dtype} {case.kind} {case.text}"}), flush=True)
            found = check(case, compiles)
            if found is None:
                result.agreed += 1
            else:
                result.differ.append(found)
    return result


def _isolated(op: Any, work: Callable[[], Findings], seconds: float) -> dict[str, Any]:
    """``work`` in a forked child; how that died if it did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(writing, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            result = work()
            print(json.dumps({"agreed": result.agreed, "differ": result.differ}), flush=True)
        finally:
            os._exit(0)
    os.close(writing)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(int(seconds))
    lines = []
    with os.fdopen(reading) as pipe:
        for line in pipe:
            if line.startswith("{"):
                lines.append(json.loads(line))
    signal.alarm(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    last = lines[-1] if lines else {}
    if "agreed" in last:
        return last
    at = last.get("at", "")
    return {
        "agreed": 0,
        "differ": [
            {
                "stage": "died",
                "dtype": "",
                "kind": "",
                "found": f"exit {code} at {at[:300]}",
                "sample": "",
                "module": "",
            }
        ],
    }


def _chosen(wanted: dict[str, Any]) -> list[Any]:
    """The operators of some names and as many others as are to be drawn, or one part of all."""
    every = sorted(database(), key=lambda op: op.full_name)
    if "part" in wanted:
        part, parts = wanted["part"]
        return every[part::parts]
    drawn = random.Random(wanted["seed"]).sample(every, wanted["draw"])
    return [op for op in every if op.full_name in wanted["names"] or op in drawn]


def main() -> None:
    wanted = json.loads(sys.stdin.read())
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import torch_tvm.driver  # noqa: F401

    dtypes = tuple(getattr(torch, name) for name in wanted["dtypes"]) if wanted.get("dtypes") else DTYPES
    for op in _chosen(wanted):
        started = time.monotonic()
        work = lambda op=op: findings(op, wanted["seed"], wanted["count"], wanted["compiles"], dtypes)
        result = _isolated(op, work, wanted.get("seconds", 120))
        result |= {"op": op.full_name, "seconds": round(time.monotonic() - started, 1)}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
