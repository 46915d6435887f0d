"""The schedules that MetaSchedule knows for a kernel: drawn at random, mutated, and applied again from plain JSON.

MetaSchedule's own evolutionary search copies modules through ``tvm.ir.save_json``, which ends the process in the wheel
that this package is built on. So it gives the space and the mutations here, and the search is ours.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.s_tir import meta_schedule
from tvm.s_tir.meta_schedule import _ffi_api

from torch_tvm.support.errors import InvalidInput

Trace = list[Any]
"""The steps of a schedule and their decisions, as plain lists, texts and numbers."""

_STEPS = frozenset(
    "AddUnitLoop Annotate CacheRead CacheWrite ComputeAt ComputeInline DecomposeReduction EnterPostproc Fuse "
    "GetChildBlocks GetConsumers GetLoops GetProducers GetSBlock GetChildSBlocks Parallel RFactor Reorder "
    "ReverseComputeAt ReverseComputeInline SampleCategorical SampleComputeLocation SamplePerfectTile Split "
    "SetScope StorageAlign Unannotate Unroll Vectorize".split()
)
"""Steps that keep what a kernel computes: TVM checks each as it is applied."""

_ANNOTATIONS = ("meta_schedule.", "pragma_auto_unroll_max_step", "pragma_unroll_explicit")

_LOOPS = tvm.transform.Sequential(
    [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.LowerOpaqueBlock(),
    ]
)


class Space:
    """The schedules of one kernel on one target, by a generator of random numbers."""

    def __init__(self, func: tirx.PrimFunc, target: tvm.target.Target, seed: int) -> None:
        self._func = func
        self._random = random.Random(seed)
        self._postprocs = [
            meta_schedule.postproc.DisallowDynamicLoop(),
            meta_schedule.postproc.RewriteParallelVectorizeUnroll(),
            meta_schedule.postproc.RewriteReductionBlock(),
        ]
        self._mutators = [meta_schedule.mutator.MutateTileSize(), meta_schedule.mutator.MutateUnroll()]
        generator = meta_schedule.space_generator.PostOrderApply(
            sch_rules=meta_schedule.schedule_rule.ScheduleRule.create("llvm"),
            postprocs=self._postprocs,
            mutator_probs=dict.fromkeys(self._mutators, 0.5),
        )
        self._context = _context(_module(func), target, generator)
        self._designs = list(self._context.generate_design_space())

    def draw(self) -> Trace | None:
        """A schedule whose every decision is made anew; ``None`` where TVM does not take it."""
        if not self._designs:
            return None
        design = self._random.choice(self._designs)
        return self._completed(s_tir.schedule.Trace(design.trace.insts, {}))

    def mutated(self, trace: Trace) -> Trace | None:
        """A schedule with one decision changed."""
        schedule = self._schedule()
        apply(trace, schedule)
        changed = self._random.choice(self._mutators).apply(schedule.trace.simplified(remove_postproc=True))
        return None if changed is None else self._completed(changed)

    def _schedule(self) -> s_tir.Schedule:
        seed = self._random.randrange(1, 1 << 30)
        return s_tir.Schedule(_module(self._func), seed=seed, debug_mask="none", error_render_level="none")

    def _completed(self, trace: s_tir.schedule.Trace) -> Trace | None:
        schedule = self._schedule()
        try:
            trace.apply_to_schedule(schedule, remove_postproc=True)
            schedule.enter_postproc()
            if not all(postproc.apply(schedule) for postproc in self._postprocs):
                return None
        except (s_tir.ScheduleError, ValueError, RuntimeError):
            return None
        return _plain(schedule.trace.as_json())


def scheduled(func: tirx.PrimFunc, trace: Trace) -> tirx.PrimFunc:
    """A kernel under a schedule, as loops.

    Raises :class:`InvalidInput` for a trace that does not fit, or that has other steps than schedules are made of.
    """
    schedule = s_tir.Schedule(_module(func), debug_mask="none", error_render_level="none")
    apply(trace, schedule)
    body = _LOOPS(schedule.mod)["main"].without_attr("global_symbol")
    body = body.with_body(tvm_ffi.structural_map(body.body, (tirx.AttrStmt, _anonymous)))
    symbol = func.attrs.get("global_symbol") if func.attrs else None
    return body if symbol is None else body.with_attr("global_symbol", symbol)


def _anonymous(mark: tirx.AttrStmt) -> tirx.AttrStmt:
    """A mark that stands before its loop and names the loop's variable, which passes then take for an argument."""
    if not mark.attr_key.startswith("pragma_"):
        return mark
    return tirx.AttrStmt(tirx.const(0, "int32"), mark.attr_key, mark.value, mark.body)


def apply(trace: Trace, schedule: s_tir.Schedule) -> None:
    """Raises :class:`InvalidInput` as :func:`scheduled` does."""
    try:
        steps = [(str(step[0]), step[2]) for step in trace[0]]
    except (IndexError, TypeError, KeyError) as error:
        raise _unfit("it is no trace") from error
    for name, attributes in steps:
        is_harmless = name in _STEPS and (
            name != "Annotate" or str(attributes[0]).startswith(_ANNOTATIONS) if attributes else True
        )
        if not is_harmless:
            raise _unfit(f"step '{name}' is none of a schedule")
    try:
        s_tir.schedule.Trace.apply_json_to_schedule(trace, schedule)
    except Exception as error:
        raise _unfit("TVM does not take it") from error


def label_of(trace: Trace) -> str:
    """A short name of a schedule that MetaSchedule found."""
    return "meta_schedule " + hashlib.sha256(json.dumps(trace).encode()).hexdigest()[:12]


def _unfit(why: str) -> InvalidInput:
    return InvalidInput(
        f"a schedule of the database does not fit its kernel: {why}",
        subject="database",
        advice="delete the record, or tune again",
    )


def _module(func: tirx.PrimFunc) -> tvm.IRModule:
    """A copy: a schedule writes into statements that others hold."""
    copy = tvm_ffi.get_global_func("ffi.DeepCopy")(func)
    return tvm.IRModule({"main": copy.with_attr("global_symbol", "main")})


def _context(
    mod: tvm.IRModule, target: tvm.target.Target, generator: meta_schedule.SpaceGenerator
) -> meta_schedule.TuneContext:
    """Its own constructor imports every tensor intrinsic of every GPU, which takes many seconds."""
    context = meta_schedule.TuneContext.__new__(meta_schedule.TuneContext)
    context.__init_handle_by_constructor__(_ffi_api.TuneContext, mod, target, generator, None, "main", 1, 1, None)
    _ffi_api.TuneContextInitialize(context)
    return context


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tirx.IntImm):
        return int(value)
    if isinstance(value, tirx.FloatImm):
        return float(value.value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return str(value)  # a text of TVM's


__all__ = ["Space", "Trace", "apply", "label_of", "scheduled"]
