"""Kernels that follow each other become one function: the VM then makes one call where it made many.

    t = alloc_tensor(…); conv(x, w, t)
    u = alloc_tensor(…); relu(t, u)            becomes      v = alloc_tensor(…)
    v = alloc_tensor(…); matmul(u, w2, v)                   main_line(x, w, w2, v)

A call of the VM costs about 0.1 µs, and each kernel takes several: storage, a tensor in it, views, letting go of them.
The function holds what lies between its kernels in one block of memory. It is laid out here, and a tensor's place is
free again after its last use.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeGuard

import tvm
from tvm import relax, tirx
from tvm.ir import GenericConst

from torch_tvm.codegen.tir.pipeline import PACKED, STACK_BYTES
from torch_tvm.runtime.library import BY_KERNEL
from torch_tvm.support.attributes import KERNEL_SEQUENCE
from torch_tvm.tir import bytes_of, round_up, static_shape

LINE = 64
"""Bytes: every tensor between kernels starts at a line of the cache."""

_HEADER = 24
"""Bytes before the ``DLTensor`` in a tensor object (``sizeof(TVMFFIObject)``)."""

_NONE, _DL_TENSOR = 0, 7
"""How a ``TVMFFIAny`` says what it holds (``TVMFFITypeIndex``)."""

_CPU = 1
"""``kDLCPU``."""


class _Field(IntEnum):
    """Fields of a ``DLTensor`` and a ``TVMFFIAny``, as TVM's ``tvm_struct_set`` numbers them."""

    ADDRESS = 0
    DATA = 1
    SHAPE = 2
    STRIDES = 3
    RANK = 4
    TYPE_CODE = 5
    TYPE_BITS = 6
    TYPE_LANES = 7
    BYTE_OFFSET = 8
    DEVICE_ID = 9
    DEVICE_TYPE = 10
    ANY_TYPE = 13
    ANY_PADDING = 14
    ANY_VALUE = 15


@tvm.transform.module_pass(opt_level=0, name="JoinKernelSequences")
def join_kernel_sequences(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """Two kernels and more in a row, all sizes constant, become a function of their own.

    A function that has such rows is kept as it was too, under a name that ends in ``BY_KERNEL``, for profilers.
    ``mod`` is in destination-passing form (after ``CallTIRRewrite``) and its storage is not planned yet.
    """
    kernels = {gvar for gvar, function in mod.functions_items() if isinstance(function, tirx.PrimFunc)}
    builder = relax.BlockBuilder(mod)
    for gvar, function in mod.functions_items():
        if isinstance(function, relax.Function):
            joiner = _Joiner(builder, kernels, gvar.name_hint, function)
            builder.update_func(gvar, joiner.joined())
            if joiner.has_lines:
                _keep(builder, function, gvar.name_hint + BY_KERNEL)
    return builder.get()


def _keep(builder: relax.BlockBuilder, function: relax.Function, name: str) -> None:
    """Add a copy of the function; planning of memory knows an allocation by its call, so each has a call of its own."""
    blocks = [
        relax.BindingBlock([_own_allocation(binding) for binding in block.bindings]) for block in function.body.blocks
    ]
    body = relax.SeqExpr(blocks, function.body.body)
    copied = relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)
    if copied.attrs and "global_symbol" in copied.attrs:
        copied = copied.with_attr("global_symbol", name)
    builder.add_func(relax.utils.copy_with_new_vars(copied), name)


def _own_allocation(binding: relax.Binding) -> relax.Binding:
    if not isinstance(binding, relax.VarBinding):
        return binding
    value = binding.value
    if not is_call_of(value, "relax.builtin.alloc_tensor"):
        return binding
    return relax.VarBinding(binding.var, relax.Call(value.op, value.args, value.attrs, value.ty_args))


@dataclass
class _Line:
    """Bindings in a row: ``made`` are the tensors that they allocate (a set in order), ``root`` maps each of their
    tensors to the one whose memory it looks at."""

    bindings: list[relax.VarBinding] = field(default_factory=list)
    calls: list[relax.Call] = field(default_factory=list)
    made: dict[relax.Var, None] = field(default_factory=dict)
    root: dict[relax.Var, relax.Expr] = field(default_factory=dict)

    def root_of(self, value: relax.Expr) -> relax.Expr:
        return self.root.get(value, value) if isinstance(value, relax.Var) else value


class _Joiner:
    """Joins the lines of one function and adds what they become to the module of ``builder``."""

    def __init__(
        self, builder: relax.BlockBuilder, kernels: set[tvm.ir.GlobalVar], name: str, function: relax.Function
    ) -> None:
        self.builder, self.kernels, self.name, self.function = builder, kernels, name, function
        self.has_lines = False
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
        if not isinstance(binding, relax.VarBinding):
            return False  # it checks a shape
        var, value = binding.var, binding.value
        if isinstance(value, relax.Var) and static_shape(value) is not None:
            line.root[var] = line.root_of(value)
        elif is_call_of(value, "relax.builtin.alloc_tensor") and static_shape(var) is not None:
            line.root[var] = var
            line.made[var] = None
        elif (
            is_call_of(value, "relax.reshape")
            and static_shape(var) is not None
            and static_shape(value.args[0]) is not None
        ):
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
            and all(static_shape(arg) is not None for arg in value.args)
        )

    # -- a line as a function --------------------------------------------------------------------------------

    def _finish(self, line: _Line) -> list[relax.VarBinding]:
        if len(line.calls) < 2:
            return line.bindings
        self.has_lines = True
        inside = _uses(binding.value for binding in line.bindings)
        needed = [var for var in line.root if self.uses[var] > inside[var]]
        results = {line.root[var] for var in needed} & set(line.made)
        given = dict.fromkeys(
            root for call in line.calls for root in map(line.root_of, call.args) if root not in line.made
        )
        operands = [*given, *(var for var in line.made if var in results)]
        places, size = _places(line, set(line.made) - results)
        before: list[relax.VarBinding] = []
        after: list[relax.VarBinding] = []
        wanted = set(needed)
        for binding in reversed(line.bindings):
            if binding.var in results:
                before.insert(0, binding)
            elif binding.var in line.root and binding.var not in line.made and binding.var in wanted:
                after.insert(0, binding)
                wanted |= set(_uses([binding.value]))
        if size > STACK_BYTES:
            block = relax.Var("block", relax.TensorType([size], "uint8"))
            alloc = relax.op.builtin.alloc_tensor(relax.ShapeExpr([size]), "uint8", 0)
            before.append(relax.VarBinding(block, self.builder.normalize(alloc)))
            operands.append(block)
        gvar = self.builder.add_func(_Caller(line, operands, places, size).function(), f"{self.name}_line")
        callee, nothing = relax.ExternFunc(gvar.name_hint), relax.TupleType([])
        call = relax.Call(callee, operands, ty_args=[nothing])
        return [*before, relax.VarBinding(relax.Var("line", nothing), call), *after]


class _Caller:
    """The packed function that makes the calls of a line.

    It is written in the form that TVM lowers such functions to, so that it stays small: its own arguments are left for
    the kernels to check, a tensor is described once, and what all calls have in common is set once. The arguments of
    a call lie in ``stack`` right before its result, which has the last place.

    The tensors between kernels lie at ``places`` in a block of ``size`` bytes: on the stack, or in the last operand.
    """

    def __init__(
        self, line: _Line, operands: Sequence[relax.Expr], places: Mapping[relax.Expr, int], size: int
    ) -> None:
        self.line, self.places, self.size = line, places, size
        self.operands = {operand: tirx.Var(f"operand{index}", "handle") for index, operand in enumerate(operands)}
        self.most = max(len(call.args) for call in line.calls)
        described = dict.fromkeys(
            (line.root_of(arg), _sizes(arg))
            for call in line.calls
            for arg in call.args
            if line.root_of(arg) in places or _sizes(line.root_of(arg)) != _sizes(arg)
        )
        self.number = {tensor: index for index, tensor in enumerate(described)}
        self.described: set[int] = set()
        self.starts = list(itertools.accumulate((len(sizes) for _, sizes in described), initial=0))
        self.stack, self.tensors = tirx.Var("stack", "handle"), tirx.Var("tensors", "handle")
        self.block = tirx.decl_buffer((max(1, size),), "uint8", "block")
        self.shapes = tirx.decl_buffer((1 + self.starts[-1],), "int64", "shapes")

    def function(self) -> tirx.PrimFunc:
        names = {"self": "handle", "args": "handle", "count": "int32", "result": "handle"}
        params = [tirx.Var(name, dtype) for name, dtype in names.items()]
        operands = [
            tirx.Bind(handle, _tensor_of(params[1], index)) for index, handle in enumerate(self.operands.values())
        ]
        calls = [stmt for call in self.line.calls for stmt in self._call(call)]
        done = tirx.Return(tirx.const(0, "int32"))
        body = tirx.SeqStmt([*operands, *self._memory(), *calls, done])
        attrs = {KERNEL_SEQUENCE: True, "tirx.is_scheduled": True, "calling_conv": PACKED}
        return tirx.PrimFunc(params, body, tvm.ir.PrimType("int32")).with_attrs(attrs)

    def _memory(self) -> list[tirx.Stmt]:
        """What the function needs on the stack; the arguments of calls are all of one type, their results of none."""
        alloca = tirx.op.tvm_stack_alloca
        stmts: list[tirx.Stmt] = [tirx.Bind(self.stack, alloca("tvm_ffi_any", self.most + 1))]
        for index in range(self.most + 1):
            stmts.append(_set(self.stack, index, _Field.ANY_TYPE, _DL_TENSOR if index < self.most else _NONE))
            stmts.append(_set(self.stack, index, _Field.ANY_PADDING, 0))
        if self.number:
            stmts.append(tirx.Bind(self.tensors, alloca("array", len(self.number))))
            stmts.append(tirx.DeclBuffer(self.shapes, data=alloca("shape", int(self.shapes.ty.shape[0]))))
        if self.places and self.size <= STACK_BYTES:
            stmts.append(tirx.AllocBuffer(self.block))
        return stmts

    def _call(self, call: relax.Call) -> list[tirx.Stmt]:
        """A tensor is described where it is first used: LLVM takes long for many stores without a call between them."""
        first = self.most - len(call.args)
        stmts: list[tirx.Stmt] = []
        for index, arg in enumerate(call.args):
            root = self.line.root_of(arg)
            number = self.number.get((root, _sizes(arg)))
            handle = self.operands[root] if number is None else _get(self.tensors, number, _Field.ADDRESS)
            if number is not None and number not in self.described:
                self.described.add(number)
                stmts += self._described(root, _sizes(arg), number)
            stmts.append(_set(self.stack, first + index, _Field.ANY_VALUE, handle))
        name = tvm.ir.StringImm(call.op.name_hint)
        return [*stmts, tirx.Evaluate(tirx.call_packed_lowered(name, self.stack, first, self.most))]

    def _described(self, root: relax.Expr, sizes: Sequence[int], number: int) -> list[tirx.Stmt]:
        start = self.starts[number]
        stmts: list[tirx.Stmt] = [
            tirx.BufferStore(self.shapes, tirx.const(size, "int64"), [tirx.const(place, "int64")])
            for place, size in enumerate(sizes, start)
        ]
        dtype = tvm.DataType(str(root.ty.dtype))
        fields = {
            _Field.DATA: self._data(root),
            _Field.SHAPE: tirx.address_of(tirx.BufferLoad(self.shapes, [tirx.const(start, "int64")])),
            _Field.STRIDES: tirx.reinterpret("handle", tirx.const(0, "uint64")),
            _Field.RANK: len(sizes),
            _Field.TYPE_CODE: tirx.const(int(dtype.type_code), "uint8"),
            _Field.TYPE_BITS: tirx.const(dtype.bits, "uint8"),
            _Field.TYPE_LANES: tirx.const(1, "uint16"),
            _Field.BYTE_OFFSET: tirx.const(0, "uint64"),
            _Field.DEVICE_ID: 0,
            _Field.DEVICE_TYPE: _CPU,
        }
        return [*stmts, *(_set(self.tensors, number, kind, value) for kind, value in fields.items())]

    def _data(self, root: relax.Expr) -> tirx.Expr:
        """The address of a tensor's elements: of an operand, or within the block of memory for what lies between
        kernels.
        """
        if root not in self.places:
            return _get(self.operands[root], 0, _Field.DATA)
        place = self.places[root]
        if self.size <= STACK_BYTES:
            return tirx.address_of(tirx.BufferLoad(self.block, [tirx.const(place, "int64")]))
        *_, block = self.operands.values()
        return tirx.handle_add_byte_offset(_get(block, 0, _Field.DATA), tirx.const(place, "int64"))


def _set(struct: tirx.Expr, index: int, kind: _Field, value: tirx.Expr | int) -> tirx.Stmt:
    return tirx.Evaluate(tirx.op.tvm_struct_set(struct, index, int(kind), value))


def _get(struct: tirx.Expr, index: int, kind: _Field) -> tirx.Expr:
    return tirx.op.tvm_struct_get(struct, index, int(kind), "handle")


def _tensor_of(args: tirx.Expr, index: int) -> tirx.Expr:
    """The ``DLTensor`` that the VM passed, in a tensor object or by itself."""
    passed = _get(args, index, _Field.ANY_VALUE)
    kind = tirx.op.tvm_struct_get(args, index, int(_Field.ANY_TYPE), "int32")
    header = tirx.Select(kind == _DL_TENSOR, tirx.const(0, "int64"), tirx.const(_HEADER, "int64"))
    return tirx.handle_add_byte_offset(passed, header)


def _places(line: _Line, local: set[relax.Var]) -> tuple[dict[relax.Expr, int], int]:
    """An offset in one block for each local tensor, and the size of the block, in bytes.

    Tensors that are alive together do not overlap. Large ones are placed first, each as low as it can be.
    """
    first: dict[relax.Expr, int] = {}
    last: dict[relax.Expr, int] = {}
    for position, call in enumerate(line.calls):
        for root in map(line.root_of, call.args):
            if root in local:
                first.setdefault(root, position)
                last[root] = position
    places: dict[relax.Expr, int] = {}
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
    size = math.prod(_sizes(tensor)) * bytes_of(tensor.ty.dtype)
    return round_up(size, LINE)


def _uses(values: Iterable[relax.Expr]) -> Counter[relax.Var]:
    """In how many of the values each variable occurs."""
    uses: Counter[relax.Var] = Counter()
    for value in values:
        uses.update(set(relax.analysis.all_vars(value)))
    return uses


def is_call_of(value: relax.Expr, name: str) -> TypeGuard[relax.Call]:
    """Whether ``value`` calls the Relax operator ``name``."""
    return isinstance(value, relax.Call) and value.op == tvm.ir.Op.get(name)


def _is_part_of_tuple(binding: relax.VarBinding | relax.MatchCast) -> bool:
    return isinstance(binding.value, relax.TupleGetItem) and isinstance(binding.value.tuple_value, relax.Var)


def _sizes(tensor: relax.Expr) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.ty.shape)
