"""Comparisons as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch_tvm.support.errors import InvalidInput
from torch_tvm.tools.bench.measure import Comparison
from torch_tvm.tools.bench.runtimes import RUNTIMES

_FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Raises :class:`InvalidInput` for a file type that cannot be drawn, or when matplotlib is missing."""
    if path.suffix not in _FORMATS:
        raise InvalidInput(f"cannot draw '{path.suffix}'", subject="--plot", advice=f"known: {', '.join(_FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InvalidInput("matplotlib is not installed", subject="--plot", advice="pip install '.[bench]'") from error


def plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """Speed of each runtime relative to the best peer of its model, as bars, to a PNG, SVG or PDF file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runtimes = [outcome.runtime for outcome in comparisons[0].outcomes]
    height = 0.8 / len(runtimes)
    figure = Figure(figsize=(9, 1.2 + 0.16 * len(runtimes) * len(comparisons)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, runtime in enumerate(runtimes):
        places = [row + index * height for row in range(len(comparisons))]
        speeds = [_speed(comparison, index) for comparison in comparisons]
        axes.barh(places, speeds, height, label=RUNTIMES[runtime].label, color=f"C{index}")
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(comparisons))], [c.model for c in comparisons])
    axes.invert_yaxis()
    axes.set_xlabel("speed relative to the best peer")
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=150)


def _speed(comparison: Comparison, index: int) -> float:
    peer = comparison.best_peer
    median = comparison.outcomes[index].median
    return peer.median / median if peer and median < float("inf") else 0.0


__all__ = ["check_plot", "plot"]
