import tvm.s_tir.meta_schedule.postproc.postproc
from tvm.s_tir.meta_schedule.postproc import postproc as postproc

class DisallowDynamicLoop(tvm.s_tir.meta_schedule.postproc.postproc.Postproc):
    def __init__(self) -> None: ...

class RewriteParallelVectorizeUnroll(tvm.s_tir.meta_schedule.postproc.postproc.Postproc):
    def __init__(self) -> None: ...

class RewriteReductionBlock(tvm.s_tir.meta_schedule.postproc.postproc.Postproc):
    def __init__(self) -> None: ...
