from typing import Any

import tvm.ir.expr
from tvm.tirx import Add as Add
from tvm.tirx import Mul as Mul

class BinaryOpExpr(tvm.ir.expr.ExprWithOp):
    pass

class BitwiseAnd(BinaryOpExpr):
    def __init__(self, a: Any, b: Any, span: Any = ...) -> None: ...
    a: Any
    b: Any

class BitwiseOr(BinaryOpExpr):
    def __init__(self, a: Any, b: Any, span: Any = ...) -> None: ...
    a: Any
    b: Any

class BitwiseXor(BinaryOpExpr):
    def __init__(self, a: Any, b: Any, span: Any = ...) -> None: ...
    a: Any
    b: Any

class CmpExpr(tvm.ir.expr.ExprWithOp):
    pass

class LShift(BinaryOpExpr):
    def __init__(self, a: Any, b: Any, span: Any = ...) -> None: ...
    a: Any
    b: Any

class LogicalExpr(tvm.ir.expr.ExprWithOp):
    pass

class RShift(BinaryOpExpr):
    def __init__(self, a: Any, b: Any, span: Any = ...) -> None: ...
    a: Any
    b: Any
