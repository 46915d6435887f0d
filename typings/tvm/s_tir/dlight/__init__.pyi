from tvm.s_tir.dlight import base as base
from tvm.s_tir.dlight import gpu as gpu
