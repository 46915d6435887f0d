"""End-to-end tests: every model by every frontend, compiled and compared with eager PyTorch.

``python -m torch_tvm.tools.e2e --filter 'resnet|bert' --via fx,torchscript --batch 1,4,dynamic``
"""

from __future__ import annotations

import argparse
import copy
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import torch_tvm
from torch_tvm.tools.numerics import assert_matches
from torch_tvm.tools.zoo import MODELS, build

FRONTENDS = ("fx", "torchscript", "lazy")
BATCHES = ("1", "4", "dynamic")


@dataclass(frozen=True)
class Case:
    """A model, the frontend by which it is captured (``fx``, ``torchscript``, ``lazy``) and its batch."""

    model: str
    frontend: str
    batch: str

    @property
    def id(self) -> str:
        return f"{self.model}-{self.frontend}-{self.batch}"


def cases(small_only: bool = False) -> Iterator[Case]:
    """Every case that makes sense: a dynamic batch by FX only."""
    for model in MODELS.values():
        if small_only and not model.small and model.name not in ("bert", "gpt2"):
            continue
        for frontend in FRONTENDS:
            for batch in BATCHES:
                if batch == "dynamic" and frontend != "fx":
                    continue
                yield Case(model.name, frontend, batch)


def run(case: Case) -> str:
    """Compile and compare; returns a line of figures. Raises ``AssertionError`` where a number is wrong."""
    size = 2 if case.batch == "dynamic" else int(case.batch)
    model, args = build(case.model, size)
    compile_start = time.perf_counter()
    compiled = torch_tvm.compile(_program(case, model, args), args, **_options(case, args))
    seconds = time.perf_counter() - compile_start
    sizes = (1, 3, 8) if case.batch == "dynamic" else (size,)
    with torch.no_grad():
        for batch in sizes:
            inputs = args if batch == size else MODELS[case.model].inputs(batch)
            _compare(compiled, model, inputs)
    left = ", ".join(sorted({item.op for item in compiled.report.fallbacks}))
    return f"compiled in {seconds:.1f} s" + (f", in PyTorch: {left}" if left else "")


def _program(case: Case, model: torch.nn.Module, args: Sequence[Any]) -> Any:
    if case.frontend != "torchscript":
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model) if MODELS[case.model].scriptable else torch.jit.trace(model, args)


def _options(case: Case, args: Sequence[Any]) -> dict[str, Any]:
    if case.batch != "dynamic":
        return {"frontend": case.frontend}
    axis = MODELS[case.model].batch_axis
    batch = torch.export.Dim("batch", min=1, max=64)
    return {"frontend": "fx", "dynamic_shapes": tuple({axis: batch} for _ in args)}


def _compare(compiled: Callable[..., Any], model: torch.nn.Module, args: Sequence[Any]) -> None:
    double = copy.deepcopy(model).double()

    def reference(*inputs: Any) -> Any:
        return (double if any(t.dtype == torch.float64 for t in inputs) else model)(*inputs)

    floating = any(t.is_floating_point() for t in args)
    if floating:
        assert_matches(compiled(*args), reference, args)
        return
    ours, eager, exact = compiled(*args), model(*args), double(*args)
    torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-4)
    error = (ours.double() - exact).square().mean().sqrt()
    limit = 3 * (eager.double() - exact).square().mean().sqrt() + 1e-5
    assert error <= limit, f"RMSE {error:.3g} against float64, limit {limit:.3g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen cases, print a line each, and return the number of failures (at most 1 as exit code)."""
    parser = argparse.ArgumentParser(prog="python -m torch_tvm.tools.e2e", description=__doc__)
    parser.add_argument("--filter", default="", help="regular expression over case names")
    parser.add_argument("--via", default=",".join(FRONTENDS), help="frontends, comma-separated")
    parser.add_argument("--batch", default=",".join(BATCHES), help="batches, comma-separated")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    arguments = parser.parse_args(argv)
    try:
        wanted = re.compile(arguments.filter)
    except re.error as error:
        parser.error(f"--filter is no regular expression: {error}")
    frontends, batches = arguments.via.split(","), arguments.batch.split(",")
    for given, known, option in ((frontends, FRONTENDS, "--via"), (batches, BATCHES, "--batch")):
        for item in given:
            if item not in known:
                parser.error(f"{option}: unknown '{item}', known: {', '.join(known)}")
    chosen = [c for c in cases() if c.frontend in frontends and c.batch in batches and wanted.search(c.id)]
    if not chosen:
        parser.error("no case matches")
    if arguments.list:
        print("\n".join(case.id for case in chosen))
        return 0
    failed = [case for case in chosen if not _report(case)]
    print(f"{len(chosen) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def _report(case: Case) -> bool:
    try:
        line = run(case)
    except Exception as error:
        print(f"FAIL {case.id}: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"ok   {case.id}: {line}", flush=True)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
