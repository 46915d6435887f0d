"""The canonical op set: for each concept its one spelling.

``CANONICAL`` lists the ops that stay whole for the lowering, by family. Whatever is not in it is
rewritten by a pattern (``lib/passes/apply_patterns.py``), decomposed by torch-mlir, or left for ATen.
"""

from __future__ import annotations

CANONICAL: dict[str, tuple[str, ...]] = {
    "elementwise": (
        "aten.abs", "aten.neg", "aten.exp", "aten.exp2", "aten.expm1", "aten.log", "aten.log2", "aten.log10",
        "aten.log1p", "aten.sqrt", "aten.rsqrt", "aten.reciprocal", "aten.sin", "aten.cos", "aten.tan",
        "aten.asin", "aten.acos", "aten.atan", "aten.sinh", "aten.cosh", "aten.tanh", "aten.asinh",
        "aten.acosh", "aten.atanh", "aten.erf", "aten.erfinv", "aten.ceil", "aten.floor", "aten.round", "aten.trunc",
        "aten.frac", "aten.sgn", "aten.square", "aten.sigmoid",
        "aten.add.Tensor", "aten.add.Scalar", "aten.sub.Tensor", "aten.sub.Scalar", "aten.mul.Tensor",
        "aten.mul.Scalar", "aten.div.Tensor", "aten.div.Scalar", "aten.div.Tensor_mode",
        "aten.div.Scalar_mode", "aten.rsub.Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Tensor_Scalar",
        "aten.pow.Scalar", "aten.remainder.Tensor", "aten.remainder.Scalar", "aten.fmod.Tensor",
        "aten.fmod.Scalar", "aten.floor_divide", "aten.floor_divide.Scalar", "aten.maximum", "aten.minimum",
        "aten.atan2", "aten.ldexp.Tensor", "aten.lerp.Tensor", "aten.lerp.Scalar", "aten.addcmul", "aten.addcdiv",
        "aten.clamp", "aten.clamp.Tensor", "aten.clamp_min", "aten.clamp_max", "aten.clamp_min.Tensor",
        "aten.clamp_max.Tensor", "aten.round.decimals", "aten.logit", "aten.fmax", "aten.fmin",
        "aten.copysign.Tensor", "aten.logaddexp", "aten.xlogy.Tensor", "aten.heaviside", "aten.nan_to_num",
    ),
    "activation": (
        "aten.relu", "aten.relu6", "aten.leaky_relu", "aten.prelu", "aten.elu", "aten.selu", "aten.celu",
        "aten.gelu", "aten.silu", "aten.mish", "aten.hardswish", "aten.hardsigmoid", "aten.hardtanh",
        "aten.softplus", "aten.log_sigmoid", "aten.threshold", "aten.glu", "aten.hardshrink", "aten.softshrink",
    ),
    "comparison": (
        "aten.eq.Tensor", "aten.eq.Scalar", "aten.ne.Tensor", "aten.ne.Scalar", "aten.lt.Tensor",
        "aten.lt.Scalar", "aten.le.Tensor", "aten.le.Scalar", "aten.gt.Tensor", "aten.gt.Scalar",
        "aten.ge.Tensor", "aten.ge.Scalar", "aten.isnan", "aten.isinf", "aten.isfinite",
        "aten.logical_not", "aten.logical_and", "aten.logical_or", "aten.logical_xor",
        "aten.bitwise_not", "aten.bitwise_and.Tensor", "aten.bitwise_and.Scalar", "aten.bitwise_or.Tensor",
        "aten.bitwise_xor.Tensor", "aten.__and__.Tensor",
        "aten.bitwise_left_shift.Tensor", "aten.bitwise_right_shift.Tensor",
        "aten.where.self", "aten.where.Scalar", "aten.where.ScalarSelf", "aten.where.ScalarOther",
        "aten.masked_fill.Scalar", "aten.masked_fill.Tensor",
    ),
    "reduction": (
        "aten.sum", "aten.sum.dim_IntList", "aten.mean", "aten.mean.dim", "aten.prod", "aten.prod.dim_int",
        "aten.amax", "aten.amin", "aten.max", "aten.min", "aten.max.dim", "aten.min.dim", "aten.argmax",
        "aten.argmin", "aten.any", "aten.any.dim", "aten.all", "aten.all.dim", "aten.var",
        "aten.var.dim", "aten.var.correction", "aten.std", "aten.std.dim", "aten.std.correction",
        "aten.var_mean", "aten.var_mean.dim", "aten.var_mean.correction", "aten.linalg_vector_norm", "aten.logsumexp",
        "aten.any.dims", "aten.aminmax", "aten.count_nonzero", "aten.count_nonzero.dim_IntList",
    ),
    "matmul": (
        "aten.mm", "aten.bmm", "aten.matmul", "aten.addmm", "aten.baddbmm", "aten.linear", "aten.dot",
        "aten.mv", "aten.outer", "aten.addbmm", "aten.addmv", "aten.addr", "aten.einsum",
    ),
    "quantization": (
        "quantized_decomposed.quantize_per_tensor", "quantized_decomposed.quantize_per_channel",
        "quantized_decomposed.dequantize_per_tensor", "quantized_decomposed.dequantize_per_channel",
    ),
    "convolution": (
        "aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.conv1d.padding", "aten.conv2d.padding",
        "aten.conv3d.padding", "aten.convolution", "aten.conv_transpose1d", "aten.conv_transpose2d.input",
        "aten.conv_transpose3d.input", "aten.convolution_backward",
    ),
    "pooling": (
        "aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d", "aten.max_pool2d_with_indices",
        "aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d", "aten.adaptive_avg_pool1d",
        "aten.adaptive_avg_pool2d", "aten.adaptive_avg_pool3d", "aten.adaptive_max_pool1d",
        "aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d", "aten.max_pool3d_with_indices",
        "aten.max_unpool2d", "aten.max_unpool3d", "aten.max_pool2d_with_indices_backward",
        "aten.max_pool3d_with_indices_backward", "aten.avg_pool2d_backward", "aten._adaptive_avg_pool2d_backward",
        "aten._adaptive_avg_pool3d_backward",
    ),
    "normalization": (
        "aten.batch_norm", "aten.layer_norm", "aten.group_norm", "aten.instance_norm", "aten.rms_norm",
        "aten.native_layer_norm", "aten.native_group_norm",
        "aten.softmax.int", "aten.log_softmax.int", "aten._softmax", "aten._log_softmax",
    ),
    "loss": (
        "aten.cross_entropy_loss", "aten.nll_loss_forward", "aten.nll_loss_backward", "aten.nll_loss2d_forward",
        "aten.nll_loss2d_backward",
    ),
    "attention": ("aten.scaled_dot_product_attention",),
    "movement": (
        "aten.view", "aten.permute", "aten.expand", "aten.squeeze.dim", "aten.unsqueeze", "aten.cat",
        "aten.stack", "aten.slice.Tensor", "aten.select.int", "aten.narrow", "aten.split.Tensor",
        "aten.split_with_sizes", "aten.unbind.int", "aten.repeat", "aten.tile", "aten.roll",
        "aten.flip", "aten.pixel_shuffle", "aten.constant_pad_nd", "aten.reflection_pad1d",
        "aten.reflection_pad2d", "aten.replication_pad2d", "aten.slice_scatter", "aten.select_scatter",
        "aten.diagonal_scatter", "aten.diagonal", "aten.unfold", "aten.tril", "aten.triu",
        "aten.upsample_nearest2d", "aten.upsample_nearest2d.vec", "aten.upsample_bilinear2d",
        "aten.upsample_bilinear2d.vec", "aten.upsample_nearest1d.vec", "aten.pixel_unshuffle",
        "aten.channel_shuffle", "aten.repeat_interleave.self_int",
        "aten.grid_sampler", "aten.im2col", "aten.col2im", "aten.reflection_pad3d", "aten.replication_pad1d",
        "aten.replication_pad3d",
    ),
    "indexing": (
        "aten.embedding", "aten.index.Tensor", "aten.index_select", "aten.gather", "aten.scatter.src",
        "aten.scatter.value", "aten.scatter_add", "aten.scatter.reduce", "aten.scatter_reduce.two",
        "aten.embedding_bag.padding_idx", "aten._embedding_bag", "aten.unique_consecutive", "aten.unique_dim",
        "aten.bincount", "aten.nonzero", "aten.nonzero_numpy", "aten.nonzero_static", "aten.masked_select",
        "aten.index_put", "aten.one_hot", "aten.bucketize.Tensor", "aten.repeat_interleave.Tensor",
        "aten.embedding_dense_backward",
    ),
    "creation": (
        "aten.to.dtype", "aten.arange", "aten.arange.start", "aten.arange.start_step", "aten.full",
        "aten.zeros", "aten.ones", "aten.full_like", "aten.zeros_like", "aten.ones_like", "aten.eye",
        "aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.linspace", "aten.eye.m", "aten.scalar_tensor",
    ),
    "scan": (
        "aten.cumsum", "aten.cumprod", "aten.logcumsumexp", "aten.sort", "aten.argsort", "aten.topk",
        "aten.kthvalue",
    ),
}  # fmt: skip

CANONICAL_OPS: frozenset[str] = frozenset(f"torch.{name}" for names in CANONICAL.values() for name in names)

KEPT_WHOLE: tuple[str, ...] = (
    "aten.binary_cross_entropy_with_logits",  # forgets pos_weight in the sum over classes
    "aten.kl_div",  # NaN where the target is 0
    "aten.renorm",  # a negative dim is the wrong one
    "aten.poisson_nll_loss",  # exp and log of integers are integers
    "aten.rad2deg",  # by 57.2958
    "aten._weight_norm_interface",  # norms of the wrong shape
    "aten.linalg_slogdet",  # the logarithm of a determinant that overflows
    "aten.cosine_similarity",  # divides a product that overflows by one, and bounds that and not each length
    "aten.stft.center",  # a loop over the frames; never ends where the window is shorter than they
    "aten.fft_rfft", "aten.masked_scatter", "aten.bilinear",
    "aten._softmax_backward_data",  # wrong, or no result at all
)  # fmt: skip
"""What torch-mlir decomposes wrongly: kept from it, so that PyTorch's own decomposition takes its place."""

DRAWING: tuple[str, ...] = (
    "aten.rand", "aten.rand_like", "aten.randn", "aten.randn.generator", "aten.randn_like", "aten.randint",
    "aten.randint.low", "aten.random", "aten.random.from", "aten.bernoulli", "aten.bernoulli.p",
    "aten.bernoulli.Tensor", "aten.uniform", "aten.normal_functional", "aten.exponential", "aten.multinomial",
    "aten.dropout", "aten.native_dropout", "aten.rrelu", "aten.rrelu_with_noise",
    "aten.rrelu_with_noise_functional", "valsem.aten.bernoulli.float",
)  # fmt: skip
"""Random ops of the dialect. torch-mlir's decompositions draw other numbers from a seed than PyTorch's kernels."""


def legal_ops_option() -> str:
    """The canonical ops, and those that torch-mlir has to leave alone, as its ``legal-ops`` lists them."""
    names = {name.removeprefix("torch.") for name in CANONICAL_OPS}
    return ",".join(sorted(names.union(KEPT_WHOLE, DRAWING)))
