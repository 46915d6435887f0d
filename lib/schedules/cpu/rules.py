"""The schedule rules for CPUs, most specific first."""

from torch_tvm.schedules.cpu.attention import Attention
from torch_tvm.schedules.cpu.bfloat16_matmul import Bfloat16Matmul
from torch_tvm.schedules.cpu.conv import DirectConv
from torch_tvm.schedules.cpu.depthwise import DepthwiseConv
from torch_tvm.schedules.cpu.elementwise import Elementwise
from torch_tvm.schedules.cpu.generic import Generic
from torch_tvm.schedules.cpu.int8_matmul import Int8Matmul
from torch_tvm.schedules.cpu.matmul import Matmul
from torch_tvm.schedules.cpu.recurrent import Recurrent
from torch_tvm.schedules.cpu.reduction import Reduction
from torch_tvm.schedules.cpu.row_chain import RowChain
from torch_tvm.schedules.cpu.scan import Scan
from torch_tvm.schedules.cpu.winograd import WinogradConv
from torch_tvm.schedules.rule import Rule

RULES: tuple[Rule, ...] = (
    Attention(),
    Recurrent(),
    DirectConv(),
    DepthwiseConv(),
    WinogradConv(),
    Int8Matmul(),
    Bfloat16Matmul(),
    Matmul(),
    Scan(),
    Elementwise(),
    Reduction(),
    RowChain(),
    Generic(),
)
