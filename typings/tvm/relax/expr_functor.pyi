from typing import Any

from tvm.relax import PyExprMutator as PyExprMutator

def mutator(cls: Any) -> Any: ...
