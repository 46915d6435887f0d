"""The schedule rules for CPUs, most specific first."""

from torch_tvm.schedules.cpu.attention.rule import Attention
from torch_tvm.schedules.cpu.convolution.depthwise import DepthwiseConv
from torch_tvm.schedules.cpu.convolution.direct import DirectConv
from torch_tvm.schedules.cpu.convolution.winograd import WinogradConv
from torch_tvm.schedules.cpu.convolution.winograd_weights import WinogradWeights
from torch_tvm.schedules.cpu.fourier.rule import Fourier
from torch_tvm.schedules.cpu.loops.elementwise import Elementwise
from torch_tvm.schedules.cpu.loops.generic import Generic
from torch_tvm.schedules.cpu.loops.producers.row_chain import RowChain
from torch_tvm.schedules.cpu.loops.reduction import Reduction
from torch_tvm.schedules.cpu.loops.scan import Scan
from torch_tvm.schedules.cpu.matmul.bfloat16 import Bfloat16Matmul
from torch_tvm.schedules.cpu.matmul.int8 import Int8Matmul
from torch_tvm.schedules.cpu.matmul.rule import Matmul
from torch_tvm.schedules.cpu.recurrent.rule import Recurrent
from torch_tvm.schedules.rule import Rule

RULES: tuple[Rule, ...] = (
    Attention(),
    Recurrent(),
    DirectConv(),
    DepthwiseConv(),
    WinogradConv(),
    WinogradWeights(),
    Int8Matmul(),
    Bfloat16Matmul(),
    Matmul(),
    Scan(),
    Fourier(),
    Elementwise(),
    Reduction(),
    RowChain(),
    Generic(),
)
