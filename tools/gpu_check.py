"""What a lent GPU is for, in one run: programs against eager, and how long they take.

    python tools/gpu_check.py --target opencl --json result.json

Each program is compiled for the target, its results are held against eager's on the CPU, and calls are timed: the
median of several, copies of arguments and results included where the target has them. Ends with 1 where a result
differs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import torch_tvm

Case = tuple[Callable[..., Any], tuple[torch.Tensor, ...]]


def programs() -> dict[str, Case]:
    """The programs by name, with their arguments."""
    torch.manual_seed(0)
    x, image = torch.randn(1024, 1024), torch.randn(1, 64, 56, 56)
    layer = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True).eval()
    return {
        "elementwise": (lambda x: torch.nn.functional.gelu(x) * 2 + x[0], (x,)),
        "sum": (lambda x: x.sum(), (x,)),
        "argmax": (lambda x: x.argmax(1), (x,)),
        "softmax": (lambda x: torch.softmax(x, 1), (x,)),
        "layer norm": (nn.LayerNorm(1024).eval(), (x,)),
        "matrix product": (lambda x: x @ x.t(), (x,)),
        "linear, few rows": (nn.Linear(1024, 4096).eval(), (x[:1].clone(),)),
        "convolution": (nn.Conv2d(64, 64, 3, padding=1).eval(), (image,)),
        "depthwise": (nn.Conv2d(64, 64, 3, padding=1, groups=64).eval(), (image,)),
        "encoder layer": (layer, (torch.randn(4, 64, 256),)),
    }


def measure(function: Callable[..., Any], args: Sequence[torch.Tensor], runs: int) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function(*args)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def check(name: str, case: Case, target: Any, runs: int) -> dict[str, Any]:
    """One program: whether its results are eager's, and the times of both."""
    function, args = case
    with torch.no_grad():
        expected = function(*args)
        compiled = torch_tvm.compile(function, args, target=target)
        device = compiled.parts().code.device
        placed = tuple(arg.to(device) for arg in args)
        result = compiled(*placed).cpu()
        scale = expected.abs().max().clamp(min=1e-6).double()
        error = float((result.double() - expected.double()).abs().max() / scale)
        return {
            "program": name,
            "rules": sorted({kernel.rule for kernel in compiled.report.kernels}),
            "fallbacks": len(compiled.report.fallbacks),
            "error": error,
            "agrees": error < 1e-3,
            "ours_ms": measure(compiled, placed, runs) * 1e3,
            "eager_ms": measure(function, args, runs) * 1e3,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all programs, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="opencl", help='"opencl", "cuda", or a target as JSON')
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="programs whose name contains this")
    given = parser.parse_args(arguments)
    target = json.loads(given.target) if given.target.startswith("{") else given.target
    rows = []
    for name, case in programs().items():
        if given.only not in name:
            continue
        rows.append(check(name, case, target, given.runs))
        row = rows[-1]
        verdict = "agrees" if row["agrees"] else "DIFFERS"
        print(
            f"{name:20} {verdict:8} {row['error']:9.1e} {row['ours_ms']:10.2f} ms (eager on the CPU "
            f"{row['eager_ms']:.2f})"
            f"  {', '.join(row['rules'])}",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2))
    return 0 if all(row["agrees"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
