from typing import Any

import tvm.s_tir.dlight.base.schedule_rule

class GPUScheduleRule(tvm.s_tir.dlight.base.schedule_rule.ScheduleRule):
    def is_target_available(self, target: Any) -> bool: ...
