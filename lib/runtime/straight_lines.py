"""Kernels that follow each other become one function: the VM then makes one call where it made many.

    t = alloc_tensor(…); conv(x, w, t)
    u = alloc_tensor(…); relu(t, u)            becomes      v = alloc_tensor(…)
    v = alloc_tensor(…); matmul(u, w2, v)                   main_line(x, w, w2, v)

A call of the VM costs about 0.1 µs, and each kernel takes several: storage, a tensor in it, views, letting go of them.
The function holds what lies between its kernels in one block of memory. It is laid out here, and a tensor's place is
free again after its last use.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import tvm
from tvm import relax, tirx
from tvm.ir import GenericConst

from torch_tvm.support.attributes import STRAIGHT_LINE

LINE = 64
"""Bytes: every tensor between kernels starts at a line of the cache."""


@tvm.transform.module_pass(opt_level=0, name="JoinStraightLines")
def join_straight_lines(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """Two kernels and more in a row, all sizes constant, become a function of their own.

    ``mod`` is in destination-passing form (after ``CallTIRRewrite``) and its storage is not planned yet.
    """
    kernels = {gvar for gvar, function in mod.functions_items() if isinstance(function, tirx.PrimFunc)}
    builder = relax.BlockBuilder(mod)
    for gvar, function in mod.functions_items():
        if isinstance(function, relax.Function):
            builder.update_func(gvar, _Joiner(builder, kernels, gvar.name_hint, function).joined())
    return builder.get()


@dataclass
class _Line:
    """Bindings in a row. ``root`` maps each of their tensors to the one whose memory it looks at."""

    bindings: list[relax.Binding] = field(default_factory=list)
    calls: list[relax.Call] = field(default_factory=list)
    made: set[relax.Var] = field(default_factory=set)
    root: dict[relax.Var, relax.Expr] = field(default_factory=dict)

    def root_of(self, value: relax.Expr) -> relax.Expr:
        return self.root.get(value, value) if isinstance(value, relax.Var) else value


class _Joiner:
    """Joins the lines of one function and adds what they become to the module of ``builder``."""

    def __init__(
        self, builder: relax.BlockBuilder, kernels: set[tvm.ir.GlobalVar], name: str, function: relax.Function
    ) -> None:
        self.builder, self.kernels, self.name, self.function = builder, kernels, name, function
        bindings = [binding for block in function.body.blocks for binding in block.bindings]
        self.uses = _uses(binding.value for binding in bindings) + _uses([function.body.body])

    def joined(self) -> relax.Function:
        function = self.function
        blocks = [self._block(block) for block in function.body.blocks]
        body = relax.SeqExpr(blocks, function.body.body)
        return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)

    def _block(self, block: relax.BindingBlock) -> relax.BindingBlock:
        done: list[relax.Binding] = []
        line = _Line()
        for binding in block.bindings:
            if _is_part_of_tuple(binding) and binding.value.tuple_value not in line.root:
                done.append(binding)  # weights: what a line needs of them comes before it
            elif not self._take(line, binding):
                done += self._finish(line)
                line = _Line()
                if not self._take(line, binding):
                    done.append(binding)
        return relax.BindingBlock([*done, *self._finish(line)])

    # -- what belongs to a line ----------------------------------------------------------------------------

    def _take(self, line: _Line, binding: relax.Binding) -> bool:
        """Add a binding to the line; false where it ends the line."""
        var, value = binding.var, binding.value
        if isinstance(value, relax.Var) and _sizes(value) is not None:
            line.root[var] = line.root_of(value)
        elif _is_call_of(value, "relax.builtin.alloc_tensor") and _sizes(var) is not None:
            line.root[var] = var
            line.made.add(var)
        elif _is_call_of(value, "relax.reshape") and None not in (_sizes(var), _sizes(value.args[0])):
            line.root[var] = line.root_of(value.args[0])
        elif self._is_kernel(value):
            line.calls.append(value)
        else:
            return False
        line.bindings.append(binding)
        return True

    def _is_kernel(self, value: relax.Expr) -> bool:
        return (
            isinstance(value, relax.Call)
            and value.op in self.kernels
            and all(isinstance(arg, (relax.Var, GenericConst)) for arg in value.args)
            and all(_sizes(arg) is not None for arg in value.args)
        )

    # -- a line as a function --------------------------------------------------------------------------------

    def _finish(self, line: _Line) -> list[relax.Binding]:
        if len(line.calls) < 2:
            return line.bindings
        inside = _uses(binding.value for binding in line.bindings)
        needed = [var for var in line.root if self.uses[var] > inside[var]]
        results = {line.root[var] for var in needed} & line.made
        given = dict.fromkeys(
            root for call in line.calls for root in map(line.root_of, call.args) if root not in line.made
        )
        operands = [*given, *(var for var in line.made if var in results)]
        gvar = self.builder.add_func(_function(line, operands, line.made - results), f"{self.name}_line")
        before, after = [], []
        wanted = set(needed)
        for binding in reversed(line.bindings):
            if binding.var in results:
                before.insert(0, binding)
            elif binding.var in line.root and binding.var not in line.made and binding.var in wanted:
                after.insert(0, binding)
                wanted |= set(_uses([binding.value]))
        call = relax.VarBinding(relax.Var("line", relax.TupleType([])), relax.Call(gvar, operands))
        return [*before, call, *after]


def _function(line: _Line, operands: Sequence[relax.Expr], local: set[relax.Var]) -> tirx.PrimFunc:
    """A function over ``operands`` that makes the calls of ``line``; ``local`` are the tensors that it holds itself.

    An operand is passed on as it came, unless a kernel looks at it in another shape. The first is taken apart in any
    case: TVM allocates where its device is.
    """
    viewed = {operands[0]} | {
        line.root_of(arg)
        for call in line.calls
        for arg in call.args
        if _sizes(arg) != _sizes(line.root_of(arg))
    }
    params: dict[relax.Expr, tirx.Var] = {}
    for index, operand in enumerate(operands):
        name = f"operand{index}"
        as_buffer = operand in viewed
        params[operand] = _buffer(operand, name) if as_buffer else tirx.Var(name, "handle")
    places, size = _places(line, local)
    block = tirx.decl_buffer((max(1, size),), "uint8", "block")

    def passed(arg: relax.Expr) -> tvm.ir.Expr:
        root = line.root_of(arg)
        if root in places:
            return _array(arg, tirx.address_of(tirx.BufferLoad(block, [tirx.const(places[root], "int64")])))
        param = params[root]
        return _array(arg, tirx.buffer.buffer_data(param)) if root in viewed else param

    calls = [
        tirx.Evaluate(tirx.call_packed(call.op.name_hint, *(passed(arg) for arg in call.args)))
        for call in line.calls
    ]
    body = tirx.SeqStmt([tirx.AllocBuffer(block), *calls] if places else calls)
    return tirx.PrimFunc(list(params.values()), body).with_attrs(
        {STRAIGHT_LINE: True, "tirx.is_scheduled": True}
    )


def _array(tensor: relax.Expr, data: tvm.ir.Expr) -> tvm.ir.Expr:
    """A ``DLTensor`` on the stack with the type of ``tensor``."""
    shape = tirx.op.tvm_stack_make_shape(*(tirx.const(size, "int64") for size in _sizes(tensor)))
    dtype = str(tensor.ty.dtype)
    return tirx.op.tvm_stack_make_array(
        data, shape, 0, len(_sizes(tensor)), tirx.const(0, dtype), tirx.const(0, "int64")
    )


def _buffer(tensor: relax.Expr, name: str) -> tirx.Buffer:
    sizes = [tirx.const(size, "int64") for size in _sizes(tensor)]
    return tirx.decl_buffer(sizes, str(tensor.ty.dtype), name, data_alignment=1)


def _places(line: _Line, local: set[relax.Var]) -> tuple[dict[relax.Var, int], int]:
    """An offset in one block for each local tensor, and the size of the block, in bytes.

    Tensors that are alive together do not overlap. Large ones are placed first, each as low as it can be.
    """
    first: dict[relax.Var, int] = {}
    last: dict[relax.Var, int] = {}
    for turn, call in enumerate(line.calls):
        for root in map(line.root_of, call.args):
            if root in local:
                first.setdefault(root, turn)
                last[root] = turn
    places: dict[relax.Var, int] = {}
    end = 0
    for tensor in sorted(first, key=lambda var: (-_bytes(var), first[var])):
        rivals = [
            (places[other], places[other] + _bytes(other))
            for other in places
            if first[other] <= last[tensor] and first[tensor] <= last[other]
        ]
        place = 0
        for start, stop in sorted(rivals):
            if place + _bytes(tensor) <= start:
                break
            place = max(place, stop)
        places[tensor] = place
        end = max(end, place + _bytes(tensor))
    return places, end


def _bytes(tensor: relax.Expr) -> int:
    """Bytes of a tensor, up to the next line of the cache."""
    size = math.prod(_sizes(tensor)) * tvm.DataType(str(tensor.ty.dtype)).itemsize
    return -(-size // LINE) * LINE


def _sizes(value: relax.Expr) -> tuple[int, ...] | None:
    """The sizes of a tensor where all are constant."""
    ty = value.ty
    if not isinstance(ty, relax.TensorType) or not isinstance(ty.shape, relax.ShapeExpr):
        return None
    sizes = list(ty.shape)
    return tuple(map(int, sizes)) if all(isinstance(size, tirx.IntImm) for size in sizes) else None


def _uses(values: Iterable[relax.Expr]) -> Counter[relax.Var]:
    """In how many of the values each variable occurs."""
    uses: Counter[relax.Var] = Counter()
    for value in values:
        uses.update(set(relax.analysis.all_vars(value)))
    return uses


def _is_call_of(value: relax.Expr, name: str) -> bool:
    return isinstance(value, relax.Call) and value.op == tvm.ir.Op.get(name)


def _is_part_of_tuple(binding: relax.Binding) -> bool:
    return isinstance(binding.value, relax.TupleGetItem) and isinstance(binding.value.tuple_value, relax.Var)
