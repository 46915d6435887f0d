from tvm.ir.prim import expr as expr
