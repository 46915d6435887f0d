from typing import Any

import tvm.s_tir.meta_schedule

class PostOrderApply(tvm.s_tir.meta_schedule.SpaceGenerator):
    def __init__(
        self, f_block_filter: Any = ..., sch_rules: Any = ..., postprocs: Any = ..., mutator_probs: Any = ...
    ) -> None: ...
