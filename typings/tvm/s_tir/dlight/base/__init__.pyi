from tvm.s_tir.dlight.base import schedule_rule as schedule_rule
