"""Convolutions on blocked channels, and the layout carried through the ops between them.

``relu(conv2d(x, w) + b)`` on ``[N, C, H, W]`` becomes ``relu(conv(x, packed w) + packed b)`` on
``[N, C / lanes, H, W, lanes]``, where ``conv`` is a TIR kernel that the CPU rules know. A value is packed or unpacked
only where an op needs the other layout, at most once (what works on each channel by itself needs none: pooling,
padding, resizing, slices, normalisation of groups, reductions); packing of weights is work on weights alone, which
``lift_params`` takes out of the model. Convolutions that stay as they are say why in the attribute
``layout_refusals`` of their function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import Expr
from tvm.relax.expr_functor import PyExprMutator, mutator

from torch_tvm.schedules.instructions.dots import GROUP, PAIR
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import ceil_div, static, static_sizes
from torch_tvm.transforms.base import Level, Transform, current_cpu
from torch_tvm.transforms.convolution import compute as conv_compute
from torch_tvm.transforms.convolution.blocked_norm import Groups, epsilon_of, groups_of, normalized
from torch_tvm.transforms.convolution.channelwise import on_blocks
from torch_tvm.transforms.convolution.choice import (
    KERNEL_PATTERN,
    LAYOUTS,
    Convolution,
    choose_convolution,
    over_gathered_taps,
    products_of_taps,
    read_convolution,
)
from torch_tvm.transforms.convolution.pointwise import read_pointwise
from torch_tvm.transforms.kernel_calls import KernelCalls
from torch_tvm.workloads.convolution import ConvWorkload, blocked_channels

OPAQUE_PATTERN = 8

REFUSALS = "layout_refusals"


@dataclass(frozen=True)
class Blocked:
    """``value`` is ``[N, blocks, *spatial, lanes]`` and stands for ``channels`` channels."""

    value: relax.Var
    channels: int

    @property
    def rank(self) -> int:
        """How many spatial axes there are."""
        return len(self.value.ty.shape) - 3

    @property
    def lanes(self) -> int:
        return int(self.value.ty.shape[-1])


@dataclass(frozen=True)
class BlockLayout(Transform):
    """Convolutions on blocked channels, and the layout carried through the ops between them.

    ``relu(conv2d(x, w) + b)``  →  ``unpacked(relu(conv(packed x, packed w) + packed b))``, in every Relax function.
    ``accuracy`` is that of the compile: ``strict`` has no Winograd, ``fast`` multiplies bfloat16.
    """

    level = Level.LAYOUTS

    accuracy: str = "default"

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        rewriter = _Rewriter(mod, current_cpu(), self.accuracy)
        for gvar, func in mod.functions_items():
            if isinstance(func, relax.Function) and not (func.attrs and "Primitive" in func.attrs):
                rewriter.refusals = []
                updated = rewriter.visit_expr(func)
                assert isinstance(updated, relax.Function), updated
                if rewriter.refusals:
                    updated = updated.with_attr(REFUSALS, rewriter.refusals)
                if not updated.same_as(func):
                    rewriter.builder_.update_func(gvar, updated)
        return rewriter.builder_.finalize()


ELEMENTWISE = frozenset(
    f"relax.{name}"
    for name in (
        "abs add astype ceil clip cos divide equal erf exp floor greater greater_equal isfinite isinf isnan less "
        "less_equal log logical_and logical_not logical_or logical_xor maximum minimum mod multiply negative "
        "nn.gelu nn.gelu_tanh nn.leakyrelu nn.relu nn.relu6 nn.selu nn.silu nn.softplus not_equal power round rsqrt "
        "sigmoid sign sin sqrt square subtract tanh trunc where"
    ).split()
)
"""Ops that compute every element from the elements at its place, with NumPy's broadcasting."""

CONVOLUTIONS = frozenset(
    f"relax.nn.{name}" for name in "conv1d conv2d conv3d conv1d_transpose conv2d_transpose conv3d_transpose".split()
)

POOLS = {
    f"relax.nn.{function.__name__}": function
    for function in (
        relax.op.nn.max_pool1d,
        relax.op.nn.max_pool2d,
        relax.op.nn.max_pool3d,
        relax.op.nn.avg_pool1d,
        relax.op.nn.avg_pool2d,
        relax.op.nn.avg_pool3d,
    )
}

REDUCTIONS = {
    f"relax.{function.__name__}": function for function in (relax.op.mean, relax.op.sum, relax.op.max, relax.op.min)
}


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, cpu: CpuModel, accuracy: str) -> None:
        super().__init__(mod)
        self.cpu, self.accuracy = cpu, accuracy
        self.kernels = KernelCalls(self.builder_)
        self.refusals: list[str] = []
        self.blocked: dict[relax.Var, Blocked] = {}
        self.plain: dict[relax.Var, relax.Var] = {}
        self.packed: dict[relax.Var, Blocked] = {}
        self.rounded: dict[Expr, relax.Var] = {}
        self.pads: dict[Expr, tuple[relax.Var, Sides]] = {}
        self.groups: dict[Expr, Groups] = {}
        self.flat: dict[relax.Var, relax.Var] = {}
        self.in_dataflow = False

    # --- bindings ------------------------------------------------------------------------------------

    def visit_dataflow_block_(self, block: relax.DataflowBlock) -> relax.BindingBlock:
        self._forget()
        self.in_dataflow = True
        result = super().visit_dataflow_block_(block)
        self.in_dataflow = False
        self._forget()
        return result

    def _forget(self) -> None:
        for known in (self.blocked, self.plain, self.packed, self.rounded, self.pads, self.groups, self.flat):
            known.clear()

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        result = self._rewrite(binding) if self.in_dataflow else None
        if result is None:
            super().visit_var_binding_(binding)
        elif isinstance(binding.var, relax.DataflowVar) and result.rank:
            self.blocked[binding.var] = result
        elif isinstance(binding.var, relax.DataflowVar):
            self.set_var_remap(binding.var, self.builder_.emit(self._unpack(result), binding.var.name))
        else:
            unpacked = self.builder_.emit_output(self._unpack(result), binding.var.name)
            self.set_var_remap(binding.var, unpacked)

    def visit_dataflow_var_(self, var: relax.DataflowVar) -> Expr:
        if var not in self.blocked:
            return super().visit_dataflow_var_(var)
        if var not in self.plain:
            self.plain[var] = self.builder_.emit(self._unpack(self.blocked[var]), var.name)
        return self.plain[var]

    def visit_call_(self, call: relax.Call) -> Expr:
        """A blocked value whose channels go last, or are reduced, is not unpacked first."""
        data = call.args[0] if call.args else None
        blocked = self.blocked.get(self.flat.get(data, data)) if isinstance(data, relax.Var) else None
        if blocked is None or blocked.channels % blocked.lanes:
            return super().visit_call_(call)
        if data not in self.flat and isinstance(call.op, tvm.ir.Op) and call.op.name in REDUCTIONS:
            return self._reduced_channels(call, blocked)
        spatial = range(2, blocked.rank + 2)
        is_flat = data in self.flat
        if _permutation(call) != ([0, 2, 1] if is_flat else [0, *spatial, 1]):
            return super().visit_call_(call)
        moved = self.builder_.emit(relax.op.permute_dims(blocked.value, [0, *spatial, 1, blocked.rank + 2]))
        return relax.op.reshape(moved, call.ty.shape)

    def _reduced_channels(self, call: relax.Call, blocked: Blocked) -> Expr:
        """A reduction over channels, and perhaps more: over blocks of them and the channels of a block."""
        full = blocked.rank + 2
        axes = _reduced_axes(call, full)
        if 1 not in axes:
            return super().visit_call_(call)
        keeps = bool(call.attrs.keepdims)
        reduced = REDUCTIONS[call.op.name](blocked.value, [*axes, full], keepdims=keeps)
        if not keeps:
            return reduced
        reduced = self.builder_.emit(reduced)
        return relax.op.reshape(reduced, relax.ShapeExpr(list(reduced.ty.shape)[:-1]))

    def _rewrite(self, binding: relax.VarBinding) -> Blocked | None:
        call = binding.value
        if isinstance(call, relax.Var):
            return self.blocked.get(call)
        if not isinstance(call, relax.Call) or not isinstance(call.op, tvm.ir.Op):
            return None
        name = call.op.name
        if name in ("relax.reshape", "relax.nn.layer_norm"):
            return self._groups(binding.var, call)
        if name == "relax.nn.pad" and (sides := _zeros_around(call)):
            self.pads[binding.var] = call.args[0], sides
        if name == "relax.call_tir":
            if not self._has_blocked_operand(call):
                return None
            return self._attempt(self._pointwise, call, None) or self._attempt(self._channelwise, call, None)
        if name in CONVOLUTIONS:
            return self._attempt(self._convolution, call, f"{name} ({binding.var.name})")
        rules: dict[str, Callable[[relax.Call], Blocked]] = {
            "relax.nn.adaptive_avg_pool2d": self._adaptive_pool,
            "relax.concat": self._concat,
            "relax.nn.pad": self._pad,
            "relax.strided_slice": self._slice,
            **dict.fromkeys(REDUCTIONS, self._reduction),
            **dict.fromkeys(POOLS, self._pool),
            **dict.fromkeys(ELEMENTWISE, self._elementwise),
        }
        if name not in rules or not self._touches_blocked(call):
            return None
        return self._attempt(rules[name], call, None)

    def _groups(self, var: relax.Var, call: relax.Call) -> Blocked | None:
        """The three steps of a group norm: the last is the value, the others are left behind."""
        data = call.args[0]
        groups = self.groups.get(data)
        if call.op.name == "relax.nn.layer_norm":
            if groups is not None and (epsilon := epsilon_of(call)) is not None:
                self.groups[var] = replace(groups, epsilon=epsilon)
            return None
        if groups is not None:
            image = self.blocked[groups.source]
            if groups.epsilon is None or not tvm_ffi.structural_equal(call.ty.shape, groups.source.ty.shape):
                return None
            return self._emit(normalized(self.builder_, image.value, groups, image.channels), image.channels)
        if isinstance(data, relax.Var) and (blocked := self.blocked.get(data)):
            if len(call.ty.shape) == 3 and _keep_images(data.ty.shape, call.ty.shape):
                self.flat[var] = data
            found = groups_of(call, data, blocked.channels) if blocked.channels % blocked.lanes == 0 else None
            if found is not None:
                self.groups[var] = found
        return None

    def _attempt(self, rule: Callable[[relax.Call], Blocked], call: relax.Call, label: str | None) -> Blocked | None:
        try:
            return rule(call)
        except Refusal as refusal:
            if label:
                self.refusals.append(f"{label}: {refusal.reason}")
            return None

    def _has_blocked_operand(self, call: relax.Call) -> bool:
        return any(isinstance(arg, relax.Var) and arg in self.blocked for arg in call.args[1].fields)

    def _touches_blocked(self, call: relax.Call) -> bool:
        args = call.args[0].fields if call.args and isinstance(call.args[0], relax.Tuple) else call.args
        return any(isinstance(arg, relax.Var) and arg in self.blocked for arg in args)

    # --- layouts of values ---------------------------------------------------------------------------

    def _emit(self, value: Expr, channels: int) -> Blocked:
        emitted = self.builder_.emit(value)
        if emitted.ty.shape is None:
            raise Refusal("sizes that are not known to agree")
        return Blocked(emitted, channels)

    def _pack(self, arg: relax.Var | Blocked, lanes: int) -> Blocked:
        """``arg``, ``[N, C, *spatial]`` unless it is so already, in blocked form."""
        if isinstance(arg, Blocked):
            return arg
        if arg in self.blocked:
            return self.blocked[arg]
        channels = static(arg.ty.shape[1])
        if channels is None:
            raise Refusal("the number of channels is not constant")
        if arg not in self.packed:
            self.packed[arg] = self._pack_value(self.visit_expr(arg), lanes, channels)
        return self.packed[arg]

    def _unpack(self, blocked: Blocked) -> Expr:
        shape = list(blocked.value.ty.shape)
        if all(static(extent) == 1 for extent in shape[2:-1]) and blocked.channels % blocked.lanes == 0:
            plain = [shape[0], tirx.IntImm("int64", blocked.channels), *shape[2:-1]]
            return relax.op.reshape(blocked.value, relax.ShapeExpr(plain))
        return self.kernels.call(
            "unpack_channels",
            conv_compute.unpack_channels,
            [blocked.value],
            blocked.channels,
            attrs={"op_pattern": OPAQUE_PATTERN},
        )

    # --- ops -----------------------------------------------------------------------------------------

    def _convolution(self, call: relax.Call) -> Blocked:
        conv = read_convolution(call)
        data, weight = call.args
        if (pads := self.pads.get(data)) and not conv.transposed and _may_be_padding(pads[1], conv):
            data, sides = pads
            padding = (p + before for p, (before, _) in zip(conv.padding, sides, strict=True))
            conv = replace(conv, padding=tuple(padding))
        products = products_of_taps(conv, [*data.ty.shape][2:], self.cpu)
        if products is not None:
            return self._sum_of_products(conv, products, data, self.visit_expr(weight))
        gathered = over_gathered_taps(conv, self.cpu, self.accuracy)
        if gathered is not None:
            return self._gathered(conv, gathered, data, self.visit_expr(weight))
        return self._kernel(conv, data, self.visit_expr(weight))

    def _gathered(self, conv: Convolution, gathered: Convolution, data: relax.Var, weight: Expr) -> Blocked:
        """A convolution as a pointwise one over what its taps read."""
        lanes = self.cpu.lanes(conv.dtype)
        blocks, taps = conv.in_channels // lanes, gathered.in_channels // conv.in_channels
        read = self.builder_.emit(
            self.builder_.call_te(
                lambda d, spatial: conv_compute.gather_taps(d, conv, spatial),
                self._pack(data, lanes).value,
                list(conv.out_spatial),
                primfunc_name_hint="gather_taps",
                primfunc_attrs={"op_pattern": OPAQUE_PATTERN},
            )
        )
        shape = relax.ShapeExpr([data.ty.shape[0], blocks * taps, *conv.out_spatial, lanes])
        split = self.builder_.emit(relax.op.reshape(weight, (conv.out_channels, blocks, lanes, taps)))
        moved = self.builder_.emit(relax.op.permute_dims(split, [0, 1, 3, 2]))
        weight = relax.op.reshape(moved, (conv.out_channels, gathered.in_channels, *gathered.kernel))
        blocked = self._emit(relax.op.reshape(read, shape), gathered.in_channels)
        return self._kernel(gathered, blocked, self.builder_.emit(weight))

    def _sum_of_products(self, conv: Convolution, products: Convolution, data: relax.Var, weight: Expr) -> Blocked:
        """A transposed convolution as a pointwise one whose results are summed where they meet."""
        lanes = self.cpu.lanes(conv.dtype)
        blocks, taps = conv.out_channels // lanes, products.out_channels // conv.out_channels
        split = self.builder_.emit(relax.op.reshape(weight, (conv.in_channels, blocks, lanes, taps)))
        moved = self.builder_.emit(relax.op.permute_dims(split, [1, 3, 2, 0]))
        weight = relax.op.reshape(moved, (products.out_channels, conv.in_channels, *products.kernel))
        found = self._kernel(products, data, self.builder_.emit(weight))
        result = self.builder_.call_te(
            lambda p, spatial: conv_compute.meeting_taps(p, conv, spatial),
            found.value,
            list(conv.out_spatial),
            primfunc_name_hint="meeting_taps",
        )
        return self._emit(result, conv.out_channels)

    def _kernel(self, conv: Convolution, data: relax.Var | Blocked, weight: Expr) -> Blocked:
        is_blocked = isinstance(data, Blocked) or data in self.blocked
        choice = choose_convolution(conv.without_gaps(), self.cpu, is_blocked, self.accuracy)
        if choice.data_lanes == 1:
            choice = choose_convolution(conv, self.cpu, is_blocked, self.accuracy)
        source: Expr
        if choice.data_lanes > 1:
            source = self._pack(data, choice.lanes).value
            if choice.strides != conv.strides:
                source = self.builder_.emit(_every(source, conv.strides))
        else:
            source = self.visit_expr(data)
        if choice.word == PAIR:
            source = self._rounded(source)
        flat = choice.over_planes() if choice.algorithm == "winograd" else choice
        if flat.kernel != choice.kernel:
            moved = self.builder_.emit(relax.op.permute_dims(weight, [0, 2, 1, 3, 4]))
            shape = (choice.out_channels, flat.in_channels, *flat.kernel)
            weight = self.builder_.emit(relax.op.reshape(moved, shape))
        packing = {} if flat.word > 1 else flat.weight_packing().to_attr()
        packed = self.builder_.emit(
            self.kernels.call("pack_weight", conv_compute.pack_weight, [weight], flat, attrs=packing)
        )
        result = self.kernels.call(
            _kernel_name(choice),
            conv_compute.convolution,
            [source, packed],
            choice,
            conv.out_spatial,
            {"op_pattern": KERNEL_PATTERN},
        )
        if choice.out_lanes > 1:
            return self._emit(result, choice.out_channels)
        return self._pack_value(self.builder_.emit(result), choice.lanes, choice.out_channels)

    def _rounded(self, source: Expr) -> relax.Var:
        """A blocked value as the bits of bfloat16, once for all that read it."""
        if source not in self.rounded:
            self.rounded[source] = self.builder_.emit(
                self.builder_.call_te(conv_compute.round_to_bfloat16, source, primfunc_name_hint="round_to_bfloat16")
            )
        return self.rounded[source]

    def _pack_value(self, plain: Expr, lanes: int, channels: int) -> Blocked:
        last = self._channels_last(plain, channels) if channels % lanes == 0 else None
        if last is not None:
            rank = len(plain.ty.shape)
            blocks = relax.ShapeExpr([*list(last.ty.shape)[:-1], channels // lanes, lanes])
            split = self.builder_.emit(relax.op.reshape(last, blocks))
            return self._emit(relax.op.permute_dims(split, [0, rank - 1, *range(1, rank - 1), rank]), channels)
        shape = [static(size) for size in plain.ty.shape]
        known = [size for size in shape if size is not None]
        packing = blocked_channels(known, lanes).to_attr() if len(known) == len(shape) else {}
        packed = self.kernels.call(
            "pack_channels",
            conv_compute.pack_channels,
            [plain],
            lanes,
            attrs={"op_pattern": OPAQUE_PATTERN, **packing},
        )
        return self._emit(packed, channels)

    def _channels_last(self, plain: Expr, channels: int) -> relax.Var | None:
        """The ``[N, *spatial, C]`` that ``plain`` was made of by moving axes, if it was."""
        made, shape = self.builder_.lookup_binding(plain), list(plain.ty.shape)
        rank = len(shape)
        if _permutation(made) == [0, rank - 1, *range(1, rank - 1)]:
            return made.args[0]
        if not isinstance(made, relax.Call) or made.op != tvm.ir.Op.get("relax.reshape"):
            return None
        moved = self.builder_.lookup_binding(made.args[0]) if isinstance(made.args[0], relax.Var) else None
        if moved is None or _permutation(moved) != [0, 2, 1] or not _keep_images(moved.ty.shape, shape):
            return None
        return self.builder_.emit(relax.op.reshape(moved.args[0], relax.ShapeExpr([shape[0], *shape[2:], channels])))

    def _elementwise(self, call: relax.Call) -> Blocked:
        tensors = [arg for arg in call.args if isinstance(arg.ty, relax.TensorType)]
        model = self._model(tensors)
        args = [self._operand(arg, model) if isinstance(arg.ty, relax.TensorType) else arg for arg in call.args]
        return self._emit(relax.Call(call.op, args, call.attrs), model.channels)

    def _pointwise(self, call: relax.Call) -> Blocked:
        gvar, operands = call.args[0], list(call.args[1].fields)
        kernel = read_pointwise(self.builder_.get()[gvar], gvar.name_hint)
        model = self._model(operands)
        args = [self._operand(arg, model) for arg in operands]
        args = [arg if isinstance(arg, relax.Var) else self.builder_.emit(arg) for arg in args]
        value = self.builder_.call_te(kernel.compute, *args, primfunc_name_hint=kernel.name)
        return self._emit(value, model.channels)

    def _model(self, operands: Sequence[Expr]) -> Blocked:
        """The blocked operand that the others broadcast against: all have its number of channels, or one."""
        blocked = [self.blocked[arg] for arg in operands if isinstance(arg, relax.Var) and arg in self.blocked]
        model = max(blocked, key=lambda part: part.channels)
        if {part.channels for part in blocked} - {model.channels, 1}:
            raise Refusal("the operands have different numbers of channels")
        return model

    def _channelwise(self, call: relax.Call) -> Blocked:
        gvar, operands = call.args[0], list(call.args[1].fields)
        images = [isinstance(arg, relax.Var) and arg in self.blocked for arg in operands]
        models = [self.blocked[arg] for arg, image in zip(operands, images, strict=True) if image]
        if len({model.channels for model in models}) != 1 or not isinstance(call.ty, relax.TensorType):
            raise Refusal("the operands have different numbers of channels")
        lanes = models[0].lanes
        kernel = on_blocks(self.builder_.get()[gvar], images, lanes)
        args = [
            self.blocked[arg].value if image else self.visit_expr(arg)
            for arg, image in zip(operands, images, strict=True)
        ]
        batch, _, *spatial = call.ty.shape
        shape = [batch, ceil_div(models[0].channels, lanes), *spatial, lanes]
        added = self.builder_.add_func(kernel, gvar.name_hint)
        result = relax.TensorType(relax.ShapeExpr(shape), call.ty.dtype)
        return self._emit(relax.call_tir(added, relax.Tuple(args), result), models[0].channels)

    def _slice(self, call: relax.Call) -> Blocked:
        """Whole blocks of channels, or any part of space."""
        blocked = self.blocked[call.args[0]]
        bounds = [static_sizes(bound.fields) for bound in call.args[1:]]
        known = [list(each) for each in bounds if each is not None]
        if len(known) < len(bounds):
            raise Refusal("a slice of the batch, or one whose bounds are unknown")
        axes, begins, ends, *given = known
        strides = given[0] if given else [1] * len(axes)
        full = blocked.rank + 2
        axes = [axis % full for axis in axes]
        if 0 in axes or min(strides) < 1 or min(begins) < 0:
            raise Refusal("a slice of the batch, or one whose bounds are unknown")
        channels = blocked.channels
        if 1 in axes:
            position, lanes = axes.index(1), blocked.lanes
            begin, end = begins[position], min(ends[position], channels)
            is_whole = begin % lanes == 0 and (end % lanes == 0 or end == channels) and begin < end
            if strides[position] != 1 or not is_whole:
                raise Refusal("a slice that is not of whole blocks")
            begins[position], ends[position], channels = begin // lanes, ceil_div(end, lanes), end - begin
        return self._emit(relax.op.strided_slice(blocked.value, axes, begins, ends, strides), channels)

    def _operand(self, arg: Expr, model: Blocked) -> Expr:
        """An operand that broadcasts against ``model`` in blocked form."""
        if isinstance(arg, relax.Var) and arg in self.blocked:
            blocked = self.blocked[arg]
            if blocked.channels == model.channels:
                return blocked.value
            first = relax.op.strided_slice(blocked.value, [blocked.rank + 2], [0], [1])
            return self.builder_.emit(first)
        if arg.ty.shape is None:
            raise Refusal("the shape of an operand is unknown")
        rank = len(arg.ty.shape)
        full = model.rank + 2
        if rank == 0:
            return self.visit_expr(arg)
        if rank > full:
            raise Refusal("an operand has more axes than the convolution's result")
        if rank <= model.rank or static(arg.ty.shape[rank - full + 1]) == 1:
            return self.builder_.emit(relax.op.expand_dims(self.visit_expr(arg), rank))
        if static(arg.ty.shape[rank - full + 1]) != model.channels:
            raise Refusal("an operand has another number of channels")
        if rank == full and isinstance(arg, relax.Var):
            return self._pack(arg, model.lanes).value
        plain = self.visit_expr(arg)
        if rank == full - 1:
            plain = self.builder_.emit(relax.op.expand_dims(plain, 0))
        return self._pack_value(self.builder_.emit(plain), model.lanes, model.channels).value

    def _pool(self, call: relax.Call) -> Blocked:
        attrs, data = call.attrs, self.blocked[call.args[0]]
        if str(attrs.layout) != LAYOUTS[data.rank][0]:
            raise Refusal(f"pooling of layout {attrs.layout}")
        layout = f"{attrs.layout}{data.lanes}c"
        pooled = POOLS[call.op.name](
            data.value,
            pool_size=list(attrs.pool_size),
            strides=list(attrs.strides),
            padding=list(attrs.padding),
            dilation=list(attrs.dilation),
            ceil_mode=bool(attrs.ceil_mode),
            count_include_pad=bool(attrs.count_include_pad),
            layout=layout,
            out_layout=layout,
        )
        return self._emit(pooled, data.channels)

    def _adaptive_pool(self, call: relax.Call) -> Blocked:
        data = self.blocked[call.args[0]]
        sizes = call.attrs.output_size
        if sizes is not None and all(int(size) == 1 for size in sizes):
            return self._emit(relax.op.mean(data.value, [2, 3], keepdims=True), data.channels)
        layout = f"NCHW{data.lanes}c"
        pooled = relax.op.nn.adaptive_avg_pool2d(
            data.value,
            None if sizes is None else [int(size) for size in sizes],
            layout=layout,
            out_layout=layout,
        )
        return self._emit(pooled, data.channels)

    def _reduction(self, call: relax.Call) -> Blocked:
        data = self.blocked[call.args[0]]
        full = data.rank + 2
        axes = _reduced_axes(call, full)
        if min(axes) < 2:
            raise Refusal("a reduction over channels or batch")
        keeps = bool(call.attrs.keepdims)
        return self._emit(REDUCTIONS[call.op.name](data.value, axes, keepdims=keeps), data.channels)

    def _pad(self, call: relax.Call) -> Blocked:
        data = self.blocked[call.args[0]]
        widths = [int(width) for width in call.attrs.pad_width]
        if any(widths[:4]):
            raise Refusal("padding of batch or channels")
        mode, fill = str(call.attrs.pad_mode), float(call.attrs.pad_value)
        return self._emit(relax.op.nn.pad(data.value, [*widths, 0, 0], mode, fill), data.channels)

    def _concat(self, call: relax.Call) -> Blocked:
        if not isinstance(call.args[0], relax.Tuple):
            raise Refusal("the operands are not listed")
        fields = list(call.args[0].fields)
        model = next(self.blocked[f] for f in fields if isinstance(f, relax.Var) and f in self.blocked)
        axis = int(call.attrs.axis) % (model.rank + 2)
        if axis == 1:
            channels = [static(field.ty.shape[1]) for field in fields]
            if any(c is None or c % model.lanes for c in channels[:-1]) or channels[-1] is None:
                raise Refusal("operands whose channels do not fill their blocks")
        parts = []
        for field in fields:
            if not isinstance(field, relax.Var):
                raise Refusal("an operand is not a variable")
            parts.append(self._pack(field, model.lanes))
        total = sum(part.channels for part in parts) if axis == 1 else model.channels
        return self._emit(relax.op.concat([part.value for part in parts], axis), total)


def _reduced_axes(call: relax.Call, rank: int) -> list[int]:
    """The axes that a reduction is over, counted from 0."""
    axes = call.attrs.axis
    return [*range(rank)] if axes is None else [int(axis) % rank for axis in axes]


def _permutation(value: Expr | None) -> list[int] | None:
    """The axes of ``value``, counted from 0, if it is a permutation that lists them."""
    if not isinstance(value, relax.Call) or value.op != tvm.ir.Op.get("relax.permute_dims"):
        return None
    axes = value.attrs.axes
    return None if axes is None else [int(axis) % len(axes) for axis in axes]


def _kernel_name(choice: ConvWorkload) -> str:
    kind = {1: choice.algorithm, PAIR: "bfloat16", GROUP: "int8"}[choice.word]
    return f"{kind}_conv"


Sides = list[tuple[int, int]]


def _zeros_around(pad: relax.Call) -> Sides | None:
    """How many zeros ``relax.nn.pad`` puts before and after each spatial axis, if it puts no more than that."""
    widths = [int(width) for width in pad.attrs.pad_width]
    is_zero = str(pad.attrs.pad_mode) == "constant" and float(pad.attrs.pad_value) == 0.0
    is_known = isinstance(pad.args[0], relax.Var) and len(widths) > 4 and not any(widths[:4])
    return list(zip(widths[4::2], widths[5::2], strict=True)) if is_zero and is_known else None


def _may_be_padding(sides: Sides, conv: Convolution) -> bool:
    """Whether the kernel can leave the zeros out: one of a single tap along an axis takes no padding there."""
    return all(k > 1 or not any(around) for k, around in zip(conv.kernel, sides, strict=True))


def _keep_images(before: Sequence[Expr], after: Sequence[Expr]) -> bool:
    """Whether a reshape leaves batch and channels as they are."""
    return all(tvm_ffi.structural_equal(a, b) for a, b in zip(list(before)[:2], list(after)[:2], strict=True))


def _every(value: relax.Var, strides: tuple[int, ...]) -> Expr:
    """Every ``strides``-th element along the spatial axes of a blocked value."""
    axes = list(range(2, 2 + len(strides)))
    ends = [value.ty.shape[axis] for axis in axes]
    return relax.op.strided_slice(value, axes, [0] * len(axes), ends, list(strides))
