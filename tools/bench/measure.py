"""Interleaved timing of the runtimes of one model: rounds of a few runs each, which a busy machine disturbs alike."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.tools.bench import training
from torch_tvm.tools.bench.options import Options
from torch_tvm.tools.bench.process import Ready, Request, RuntimeFailed, Worker
from torch_tvm.tools.bench.runtimes import RUNTIMES
from torch_tvm.tools.zoo import build

PAUSE = 0.1
"""Seconds between two runtimes: idle threads of the last runtime have stopped spinning by then."""
_SLOW = 2.0
_MOST_RUNS = 2000


@dataclass(frozen=True)
class Plan:
    """``rounds`` for each runtime, of about ``iteration_seconds`` each; ``timeout`` in seconds for one answer."""

    rounds: int = 9
    iteration_seconds: float = 0.3
    timeout: float = 900.0


@dataclass(frozen=True)
class Outcome:
    """What one runtime made of a model: ``seconds`` of every counted call, or the reason of a ``failure``."""

    runtime: str
    ready: Ready | None = None
    seconds: tuple[float, ...] = ()
    failure: str = ""

    @property
    def median(self) -> float:
        """Seconds of a call; ``inf`` for a failure."""
        return statistics.median(self.seconds) if self.seconds and not self.failure else float("inf")


@dataclass(frozen=True)
class Comparison:
    """The outcomes of one model in the order of the runtimes; ours is the first."""

    model: str
    outcomes: tuple[Outcome, ...] = field(default_factory=tuple)

    @property
    def ours(self) -> Outcome:
        return self.outcomes[0]

    @property
    def best_peer(self) -> Outcome | None:
        """The fastest of the others; ``None`` when none of them ran."""
        peers = [outcome for outcome in self.outcomes[1:] if outcome.median < float("inf")]
        return min(peers, key=lambda outcome: outcome.median, default=None)

    @property
    def ratio(self) -> float | None:
        """How many times as long as ours the best peer takes; ``None`` when one of the two did not run."""
        peer = self.best_peer
        return peer.median / self.ours.median if peer and self.ours.median < float("inf") else None

    @property
    def is_accurate(self) -> bool:
        """Whether our error against float64 is within three times eager's plus 1e-5."""
        eager = next((o.ready for o in self.outcomes if o.runtime == "eager" and o.ready), None)
        return not (eager and self.ours.ready) or self.ours.ready.rmse <= 3 * eager.rmse + 1e-5


def compare(
    model: str,
    runtimes: Sequence[str],
    options: Options,
    plan: Plan,
    folder: Path,
    *,
    batch: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Ours and the peers ``runtimes`` on one model; a runtime that fails is an outcome with its reason.

    ``folder`` takes temporary files.
    """
    reference = folder / "reference.pt"
    torch.save(float64_results(model, batch, options.training), reference)
    outcomes: dict[str, Outcome] = {}
    workers: dict[str, Worker] = {}
    try:
        for name in ("ours", *runtimes):
            progress(f"{model}: {RUNTIMES[name].label} compiles")
            request = Request(name, model, batch, options, str(reference))
            outcomes[name] = _start(request, str(folder), plan, workers)
        _time_interleaved(workers, outcomes, plan, progress)
    finally:
        for worker in workers.values():
            worker.stop()
    return Comparison(model, tuple(outcomes.values()))


def float64_results(model: str, batch: int, is_trained: bool = False) -> list[torch.Tensor]:
    """Flat results of the model in double precision; in training the gradients of its parameters."""
    module, args = build(model, batch)
    exact, args = copy.deepcopy(module).double(), pytree.tree_map(_as_double, args)
    if is_trained:
        return training.step_of(exact, training.prepared(exact), args)()
    with torch.no_grad():
        return pytree.tree_leaves(exact(*args))


def _as_double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


def _start(request: Request, folder: str, plan: Plan, workers: dict[str, Worker]) -> Outcome:
    missing = RUNTIMES[request.runtime].missing()
    if missing:
        return Outcome(request.runtime, failure=f"{missing[0]} is not installed: pip install '.[bench]'")
    workers[request.runtime] = worker = Worker(request, folder, plan.timeout)
    try:
        return Outcome(request.runtime, worker.start())
    except RuntimeFailed as failure:
        return Outcome(request.runtime, failure=str(failure))


def _time_interleaved(
    workers: dict[str, Worker], outcomes: dict[str, Outcome], plan: Plan, progress: Callable[[str], None]
) -> None:
    ready = {name: outcomes[name].ready for name in workers}
    estimate = {name: item.first_seconds for name, item in ready.items() if item is not None}
    for number in range(plan.rounds):
        progress(f"round {number + 1} of {plan.rounds}")
        for name, worker in workers.items():
            outcome = outcomes[name]
            if outcome.failure or (number and estimate[name] > _SLOW):
                continue
            time.sleep(PAUSE)
            runs = max(1, min(_MOST_RUNS, round(plan.iteration_seconds / max(estimate[name], 1e-7))))
            try:
                seconds = worker.time(runs)
            except RuntimeFailed as failure:
                outcomes[name] = replace(outcome, failure=str(failure))
                continue
            estimate[name] = statistics.median(seconds)
            outcomes[name] = replace(outcome, seconds=(*outcome.seconds, *seconds))


__all__ = ["Comparison", "Outcome", "Plan", "compare", "float64_results"]
