"""Comparisons as Markdown."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib import metadata

from torch_tvm.tools.bench.measure import Comparison, Outcome
from torch_tvm.tools.bench.options import Options
from torch_tvm.tools.bench.runtimes import RUNTIMES

_LONGEST_REASON = 90
_PACKAGES = ("torch", "apache-tvm", "onnxruntime", "openvino")


def geometric_mean(ratios: Sequence[float]) -> float:
    """``exp(mean(log(r)))``; ``nan`` for no ratio."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else float("nan")


def markdown(comparisons: Sequence[Comparison], options: Options, batch: int) -> str:
    """Times with ratios and their geometric mean, then compile times and errors."""
    parts = [_heading(options, batch), _times(comparisons), _compilation(comparisons)]
    return "\n\n".join(parts) + "\n"


def _heading(options: Options, batch: int) -> str:
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES if _version(name))
    call = "step of training" if options.training else "call"
    return (
        f"Milliseconds of a {call}, float32, batch {batch}, {options.threads} threads, accuracy {options.accuracy}, on "
        f"{_processor()}.\n{versions}. Each runtime is a process of its own; they take turns, medians. "
        "Ratio: time of the best peer over ours."
    )


def _times(comparisons: Sequence[Comparison]) -> str:
    labels = [RUNTIMES[outcome.runtime].label for outcome in comparisons[0].outcomes]
    rows = [["model", *labels, "best peer", "ratio"]]
    for comparison in comparisons:
        peer, ratio = comparison.best_peer, comparison.ratio
        cells = [_milliseconds(outcome) for outcome in comparison.outcomes]
        rows.append(
            [
                comparison.model,
                *cells,
                RUNTIMES[peer.runtime].label if peer else "–",
                f"{ratio:.2f}" if ratio else "–",
            ]
        )
    ratios = [comparison.ratio for comparison in comparisons if comparison.ratio]
    mean = f"{geometric_mean(ratios):.2f}" if ratios else "–"
    rows.append(["geometric mean", *[""] * len(labels), "", mean])
    return table(rows)


def _milliseconds(outcome: Outcome) -> str:
    return reason(outcome.failure) or f"{outcome.median * 1e3:.4g}"


def _compilation(comparisons: Sequence[Comparison]) -> str:
    labels = [RUNTIMES[outcome.runtime].label for outcome in comparisons[0].outcomes]
    rows = [["model", *labels]]
    for comparison in comparisons:
        cells = [_compiled(outcome) for outcome in comparison.outcomes]
        cells[0] += "" if comparison.is_accurate else " **too large**"
        rows.append([comparison.model, *cells])
    return "Seconds from the model in memory to its first result, and RMSE against float64:\n\n" + table(rows)


def _compiled(outcome: Outcome) -> str:
    return f"{outcome.ready.compile_seconds:.2f} s, {outcome.ready.rmse:.1e}" if outcome.ready else "–"


def reason(failure: str) -> str:
    """Why something has no figure, short enough for a cell."""
    text = failure.replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table; the first is its head."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


__all__ = ["geometric_mean", "markdown", "reason", "table"]
