"""Samples of PyTorch's own operator database through import, canonicalisation and, if asked, a compiled module.

Run as a script it takes names of operators as JSON on stdin and prints one JSON line for each: what differs from eager.
Every operator runs in a process of its own, for one that crashes or hangs there.
"""

from __future__ import annotations

import json
import random
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from torch_tvm.tools.opinfo.isolation import Note, isolated
from torch_tvm.tools.opinfo.samples import DTYPES, Case, cases, database, difference, eager_result


@dataclass
class Findings:
    """What one operator gave: how many calls agreed, and the others by their stage."""

    agreed: int = 0
    differ: list[dict[str, str]] = field(default_factory=list)


def check(case: Case, compiles: bool) -> dict[str, str] | None:
    """The stage at which a call stops to be eager's, and how; ``None`` when all are, or where there is nothing to
    compare.
    """
    from torch_tvm.dialect import view
    from torch_tvm.importers.torchscript import import_torchscript
    from torch_tvm.passes.pipeline import canonicalize

    eager = eager_result(case)
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


def findings(op: Any, seed: int, count: int, compiles: bool, dtypes: tuple[torch.dtype, ...], note: Note) -> Findings:
    result = Findings()
    for dtype in dtypes:
        if dtype not in op.dtypes:
            continue
        try:
            drawn = list(cases(op, dtype, seed, count))
        except Exception:  # some samples need what is not there
            continue
        for case in drawn:
            note(f"{dtype} {case.kind} {case.text}")
            found = check(case, compiles)
            if found is None:
                result.agreed += 1
            else:
                result.differ.append(found)
    return result


def _isolated(work: Callable[[Note], Findings], seconds: int) -> dict[str, Any]:
    """``work`` in a process of its own; how that died if it did."""
    result, how = isolated(lambda note: vars(work(note)), seconds)
    if result is not None:
        return result
    nothing = dict.fromkeys(("dtype", "kind", "sample", "module"), "")
    return {"agreed": 0, "differ": [{**nothing, "stage": "died", "found": how}]}


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
    import torch_tvm.driver.compiler  # noqa: F401

    dtypes = tuple(getattr(torch, name) for name in wanted["dtypes"]) if wanted.get("dtypes") else DTYPES
    for op in _chosen(wanted):
        started = time.monotonic()
        work = lambda note, op=op: findings(op, wanted["seed"], wanted["count"], wanted["compiles"], dtypes, note)
        result = _isolated(work, wanted.get("seconds", 120))
        result |= {"op": op.full_name, "seconds": round(time.monotonic() - started, 1)}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
