"""Schedule rules for CPUs, most specific first."""

from torch_tvm.schedules.cpu.conv import DirectConv
from torch_tvm.schedules.cpu.matmul import Matmul
from torch_tvm.schedules.rule import Rule

RULES: tuple[Rule, ...] = (DirectConv(), Matmul())
