import tvm.s_tir.meta_schedule.mutator.mutator
from tvm.s_tir.meta_schedule.mutator import mutator as mutator

class MutateTileSize(tvm.s_tir.meta_schedule.mutator.mutator.Mutator):
    def __init__(self) -> None: ...

class MutateUnroll(tvm.s_tir.meta_schedule.mutator.mutator.Mutator):
    def __init__(self) -> None: ...
