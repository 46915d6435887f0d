import collections.abc
from typing import Any

import tvm
import tvm.s_tir.meta_schedule.postproc.postproc
import tvm.s_tir.meta_schedule.schedule_rule
import tvm.target
import tvm.tirx
import tvm_ffi.core
from tvm.s_tir.meta_schedule import _ffi_api as _ffi_api
from tvm.s_tir.meta_schedule import mutator as mutator
from tvm.s_tir.meta_schedule import postproc as postproc
from tvm.s_tir.meta_schedule import schedule_rule as schedule_rule
from tvm.s_tir.meta_schedule import space_generator as space_generator

class SpaceGenerator(tvm_ffi.core.Object):
    ScheduleFnType: Any
    def SpaceGeneratorType(args, **kwargs: Any) -> Any: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def clone(self) -> Any: ...
    @staticmethod
    def create(kind: Any = ..., *args: Any, **kwargs: Any) -> Any: ...
    def generate_design_space(self, mod: Any) -> Any: ...
    mutator_probs: collections.abc.Mapping[Any, tvm.tirx.FloatImm] | None
    postprocs: collections.abc.Sequence[tvm.s_tir.meta_schedule.postproc.postproc.Postproc] | None
    sch_rules: collections.abc.Sequence[tvm.s_tir.meta_schedule.schedule_rule.ScheduleRule] | None

class TuneContext(tvm_ffi.core.Object):
    def __init__(
        self,
        mod: Any = ...,
        *,
        target: Any = ...,
        space_generator: Any = ...,
        search_strategy: Any = ...,
        task_name: Any = ...,
        rand_state: Any = ...,
        num_threads: Any = ...,
        logger: Any = ...,
    ) -> None: ...
    def clone(self) -> Any: ...
    def generate_design_space(self) -> Any: ...
    def generate_measure_candidates(self) -> Any: ...
    mod: tvm.IRModule | None
    def notify_runner_results(self, measure_candidates: Any, results: Any) -> None: ...
    num_threads: int
    def post_tuning(self) -> None: ...
    def pre_tuning(
        self,
        max_trials: Any,
        num_trials_per_iter: Any = ...,
        design_spaces: Any = ...,
        database: Any = ...,
        cost_model: Any = ...,
    ) -> None: ...
    rand_state: int
    search_strategy: Any
    space_generator: SpaceGenerator | None
    target: tvm.target.Target | None
    task_name: str | None
