"""Tuning of all kernels of a module: which is next, what was found, and what of it is taken.

until trials or time are used up:
    the kernel with the most time to gain, for the candidates it has had, gets a batch of new candidates
    a batch is measured interleaved with the rule's own schedule; what computes something else is out
    one that seems faster than all so far meets the rule's own schedule and the former choice again, for longer
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import relax

from torch_tvm.backends import backend_of, schedule
from torch_tvm.profiling.autotune import MARGIN, Measured, is_static, key_of
from torch_tvm.profiling.operations import count_operations
from torch_tvm.schedules.rule import Offer
from torch_tvm.support.attributes import TRANSFORM_PARAMS
from torch_tvm.support.errors import InvalidInput
from torch_tvm.tuning.candidates import Candidate, build, chosen, own_hash, propose
from torch_tvm.tuning.database import Database, Record
from torch_tvm.tuning.local import LocalTimer
from torch_tvm.tuning.timing import Operand, Outcome, Timer

BATCH = 8
"""Candidates of one batch."""

ROUNDS = 4
"""Rounds of the candidates of a batch; one that is to be taken has :data:`FINAL_ROUNDS`."""

FINAL_ROUNDS = 24

BEST = 4
"""Schedules of MetaSchedule that are kept to look near them."""

EACH = 64
"""Candidates of each kernel where neither a number nor a time is given."""


@dataclass
class Task:
    """A kernel: how often a call of the model runs it, what is known of it, and the seconds of it now and at best."""

    key: str
    offer: Offer
    record: Record
    calls: int
    own: bytes = b""
    choice: bytes = b""
    batches: int = 0
    is_done: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return self.offer.kernel

    @property
    def line(self) -> str:
        return self.record.line

    @property
    def own_seconds(self) -> float:
        return self.record.own_seconds

    @property
    def seconds(self) -> float:
        """Of the best schedule: never more than of the rule's own."""
        return self.record.seconds if self.record.choice else self.record.own_seconds

    @property
    def operands(self) -> list[Operand]:
        params = self.offer.original.params
        return [([int(size) for size in param.shape], str(param.dtype)) for param in params]


@dataclass
class Tuning:
    """What tuning found, or has found so far; ``str`` is a table of the kernels, :meth:`to_dict` plain values.

    ``trials`` candidates were tried now or before, ``seconds`` were spent now. ``skipped`` are kernels that are not
    tuned, and why.
    """

    tasks: list[Task]
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def trials(self) -> int:
        return sum(len(task.record.tried) for task in self.tasks)

    def to_dict(self) -> dict[str, Any]:
        """All of it as dicts and lists, which JSON can hold."""
        rows = [
            {
                "kernel": task.name,
                "line": task.line,
                "calls": task.calls,
                "share": self._share(task),
                "own_seconds": task.own_seconds,
                "seconds": task.seconds,
                "operations": task.record.operations,
                "choice": task.record.choice or "the rule's own",
                "trials": len(task.record.tried),
            }
            for task in self._sorted()
        ]
        return {"kernels": rows, "trials": self.trials, "seconds": self.seconds, "skipped": self.skipped}

    def __str__(self) -> str:
        before = sum(task.calls * task.own_seconds for task in self.tasks)
        after = sum(task.calls * task.seconds for task in self.tasks)
        lines = [
            f"{len(self.tasks)} {'kernel' if len(self.tasks) == 1 else 'kernels'}, {self.trials} schedules tried, "
            f"{self.seconds:.0f} s; kernels of a call: {before * 1e3:.3f} ms before, {after * 1e3:.3f} ms now",
            "",
            "| kernel | line | share | GFLOP/s by rule | GFLOP/s now | faster by | tried | schedule |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        for task in self._sorted():
            rates = (f"{_rate(task.record.operations, s):.1f}" if s else "–" for s in (task.own_seconds, task.seconds))
            gain = f"{task.own_seconds / task.seconds:.2f}×" if task.seconds else "–"
            lines.append(
                f"| {task.name} | {task.line or '–'} | {self._share(task):.0%} | {' | '.join(rates)} | {gain} | "
                f"{len(task.record.tried)} | {task.record.choice or 'the rule’s own'} |"
            )
        lines += [f"not tuned: {name}: {why}" for name, why in self.skipped.items()]
        return "\n".join(lines)

    def _sorted(self) -> list[Task]:
        return sorted(self.tasks, key=lambda task: -task.calls * task.own_seconds)

    def _share(self, task: Task) -> float:
        total = sum(each.calls * each.own_seconds for each in self.tasks)
        return task.calls * task.own_seconds / total if total else 0.0


def _rate(operations: float, seconds: float) -> float:
    return operations / seconds / 1e9


def tune_module(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    database: Database,
    *,
    trials: int | None = None,
    seconds: float | None = None,
    lines: Mapping[str, str] | None = None,
    timers: Sequence[Timer] = (),
    show: Callable[[Tuning], None] | None = None,
) -> Tuning:
    """Tune the kernels of an optimised module, and leave in ``database`` what was found.

    It stops after ``trials`` schedules, earlier runs counted, or after ``seconds``; with neither, after
    :data:`EACH` a kernel. ``lines`` are the user's lines by kernel. ``timers`` measure side by side, by default
    this machine alone. ``show`` is told after each batch. Raises :class:`InvalidInput` for a target that this
    machine cannot measure, and for a wrong record in the folder.
    """
    _check(trials, seconds)
    started = time.monotonic()
    obstacle = "" if timers else backend_of(target).why_not_measurable(target)
    if obstacle:
        raise InvalidInput(
            f"kernels for {target.kind.name} cannot be timed on this machine: {obstacle}",
            subject="tune",
            advice="tune on the machine that will run them, or by an RPC tracker that has such machines",
        )
    own_timers = timers or (LocalTimer(),)
    tuning = _tasks(mod, target, database, lines or {})
    limit = EACH * len(tuning.tasks) if trials is None and seconds is None else trials
    search = _Search(tuning, target, database, own_timers)
    try:
        search.baseline()
        while not search.is_over(limit, seconds, started):
            search.batches(limit)
            tuning.seconds = time.monotonic() - started
            if show is not None:
                show(tuning)
    finally:
        tuning.seconds = time.monotonic() - started
        for timer in own_timers if not timers else ():
            timer.close()
    return tuning


def _check(trials: int | None, seconds: float | None) -> None:
    values: dict[str, Any] = {"trials": trials, "seconds": seconds}
    for name, value in values.items():
        kinds = (int,) if name == "trials" else (int, float)
        if value is not None and not (isinstance(value, kinds) and not isinstance(value, bool) and value >= 0):
            raise InvalidInput(f"expected a number from 0 on, got {value!r}", subject=name)


def _tasks(mod: tvm.IRModule, target: tvm.target.Target, database: Database, lines: Mapping[str, str]) -> Tuning:
    offers: list[Offer] = []

    def collect(offer: Offer) -> tvm.tirx.PrimFunc:
        offers.append(offer)
        return offer.own

    schedule(mod, target, choose=collect)
    counts = _calls(mod)
    tasks: dict[str, Task] = {}
    skipped = {}
    for offer in offers:
        calls = counts.get(offer.kernel, 0)
        if not calls:
            continue
        if not is_static(offer.original):
            skipped[offer.kernel] = "its sizes are not known"
            continue
        key = key_of(offer.original, target)
        if key in tasks:
            tasks[key].calls += calls
            continue
        own, record = own_hash(offer), database.find(key)
        if record is None or record.own != own:
            shapes = [[int(size) for size in param.shape] for param in offer.original.params]
            operations = count_operations(offer.own, shapes)
            record = Record(offer.kernel, lines.get(offer.kernel, ""), str(target), own, operations=operations)
        tasks[key] = Task(key, offer, record, calls)
    return Tuning(list(tasks.values()), skipped=skipped)


def _calls(mod: tvm.IRModule) -> dict[str, int]:
    """How often the functions of a module call each kernel, but for what packs weights, once each."""
    found: dict[str, int] = {}

    def visit(node: Any) -> None:
        if isinstance(node, relax.Call) and getattr(node.op, "name", "").startswith("relax.call_tir"):
            name = node.args[0].name_hint
            found[name] = found.get(name, 0) + 1

    for gvar, function in mod.functions_items():
        if isinstance(function, relax.Function) and gvar.name_hint != TRANSFORM_PARAMS:
            relax.analysis.post_order_visit(function, visit)
    return found


class _Search:
    def __init__(self, tuning: Tuning, target: tvm.target.Target, database: Database, timers: Sequence[Timer]) -> None:
        self.tuning, self.target, self.database, self.timers = tuning, target, database, timers

    def baseline(self) -> None:
        """Time what rules make of the kernels that have no record yet."""
        for task in self.tuning.tasks:
            task.own = build(task.offer.own, self.target)
            if task.own_seconds:
                continue
            found = self.timers[0].measure({"own": task.own}, task.operands, ROUNDS)["own"]
            if found.error:
                self.tuning.skipped[task.name] = found.error
                task.is_done = True
                continue
            task.record.own_seconds = task.record.seconds = found.seconds
            self.database.keep(task.key, task.record)

    def is_over(self, trials: int | None, seconds: float | None, started: float) -> bool:
        is_late = seconds is not None and time.monotonic() - started >= seconds
        is_enough = trials is not None and self.tuning.trials >= trials
        return is_late or is_enough or all(task.is_done for task in self.tuning.tasks)

    def batches(self, trials: int | None) -> None:
        """One batch on each machine, of the kernels with the most to gain."""
        waiting = sorted(
            (task for task in self.tuning.tasks if not task.is_done),
            key=lambda task: -task.calls * task.seconds / (1 + task.batches),
        )
        left = BATCH * len(self.timers) if trials is None else trials - self.tuning.trials
        jobs = []
        for task, timer in zip(itertools.cycle(waiting), self.timers, strict=False):
            count = min(BATCH, left)
            if count <= 0:
                break
            seed = len(task.record.tried) * 1000 + task.batches
            proposed = propose(task.offer, self.target, task.record, count, seed)
            task.batches += 1
            left -= len(proposed)
            task.is_done = not proposed
            if proposed:
                task.record.tried.update({each.label: None for each in proposed})
                jobs.append((task, timer, proposed))
        with ThreadPoolExecutor(len(self.timers)) as pool:
            list(pool.map(lambda job: self._measure(*job), jobs))

    def _measure(self, task: Task, timer: Timer, proposed: Sequence[Candidate]) -> None:
        libraries = {"own": task.own, **{each.label: each.library for each in proposed if each.library}}
        found = timer.measure(libraries, task.operands, ROUNDS)
        with task.lock:
            self._learn(task, timer, proposed, found)

    def _learn(self, task: Task, timer: Timer, proposed: Sequence[Candidate], found: Mapping[str, Outcome]) -> None:
        own = found["own"].seconds
        ratios = {
            each.label: found[each.label].seconds / own
            for each in proposed
            if own and each.label in found and not found[each.label].error
        }
        for each in proposed:
            task.record.tried[each.label] = ratios.get(each.label)
        self._note_best(task, proposed)
        best = min(proposed, key=lambda each: ratios.get(each.label, float("inf")))
        is_better = ratios.get(best.label, 1.0) <= MARGIN * task.seconds / task.own_seconds
        if is_better:
            self._decide(task, timer, best)
        self.database.keep(task.key, task.record)

    def _note_best(self, task: Task, proposed: Sequence[Candidate]) -> None:
        record = task.record
        record.traces.update({each.label: each.trace for each in proposed if each.trace is not None})
        ratios = {label: record.tried.get(label) for label in record.traces}
        known = {label: ratio for label, ratio in ratios.items() if ratio is not None}
        best = sorted(known, key=lambda label: known[label])
        record.traces = {label: record.traces[label] for label in best[:BEST]}

    def _decide(self, task: Task, timer: Timer, best: Candidate) -> None:
        """Take a candidate where it is faster than the rule's own schedule and the former choice, in more rounds."""
        record = task.record
        if record.choice and not task.choice:
            former = chosen(task.offer, record)
            task.choice = build(former, self.target) if former is not None else b""
        libraries = {"own": task.own, best.label: best.library}
        if record.choice and task.choice:
            libraries["former"] = task.choice
        found = timer.measure(libraries, task.operands, FINAL_ROUNDS)
        if any(found[label].error for label in libraries):
            return
        own, seconds = found["own"].seconds, found[best.label].seconds
        if seconds > MARGIN * own or ("former" in found and seconds >= found["former"].seconds):
            return
        record.own_seconds, record.seconds = own, seconds
        record.choice, record.trace = best.label, best.trace
        task.choice = best.library


class TunedSchedules:
    """Chooses schedules by the records of a database; ``otherwise`` chooses where there is none.

    ``records`` is what was chosen.
    """

    def __init__(
        self,
        database: Database,
        target: tvm.target.Target,
        otherwise: Callable[[Offer], tvm.tirx.PrimFunc] | None = None,
    ) -> None:
        self.records: list[Measured] = []
        self._known, self._target, self._otherwise = database.records(), target, otherwise

    def choose(self, offer: Offer) -> tvm.tirx.PrimFunc:
        """The schedule that was measured to be the fastest, if any was."""
        record = self._known.get(key_of(offer.original, self._target)) if self._known else None
        func = None if record is None else chosen(offer, record)
        if record is None or func is None:
            return self._otherwise(offer) if self._otherwise and record is None else offer.own
        seconds = {"own": record.own_seconds, record.choice: record.seconds}
        self.records.append(Measured(offer.kernel, record.choice, seconds, True))
        return func


__all__ = ["Task", "TunedSchedules", "Tuning", "tune_module"]
