from typing import Any

import tvm.ir

def adaptive_avg_pool2d(data: Any, output_size: Any = ..., layout: Any = ..., out_layout: Any = ...) -> tvm.ir.Expr: ...
def attention(
    query: Any, key: Any, value: Any, bias: Any = ..., scale: Any = ..., causal_mask: Any = ..., window_size: Any = ...
) -> tvm.ir.Expr: ...
def avg_pool1d(
    data: Any,
    pool_size: Any = ...,
    strides: Any = ...,
    padding: Any = ...,
    dilation: Any = ...,
    ceil_mode: Any = ...,
    count_include_pad: Any = ...,
    layout: Any = ...,
    out_layout: Any = ...,
) -> tvm.ir.Expr: ...
def avg_pool2d(
    data: Any,
    pool_size: Any = ...,
    strides: Any = ...,
    padding: Any = ...,
    dilation: Any = ...,
    ceil_mode: Any = ...,
    count_include_pad: Any = ...,
    layout: Any = ...,
    out_layout: Any = ...,
) -> tvm.ir.Expr: ...
def avg_pool3d(
    data: Any,
    pool_size: Any = ...,
    strides: Any = ...,
    padding: Any = ...,
    dilation: Any = ...,
    ceil_mode: Any = ...,
    count_include_pad: Any = ...,
    layout: Any = ...,
    out_layout: Any = ...,
) -> tvm.ir.Expr: ...
def batch_norm(*args: Any, **kwargs: Any) -> tvm.ir.Expr: ...
def conv1d(
    data: Any,
    weight: Any,
    strides: Any = ...,
    padding: Any = ...,
    dilation: Any = ...,
    groups: Any = ...,
    data_layout: Any = ...,
    kernel_layout: Any = ...,
    out_layout: Any = ...,
    out_dtype: Any = ...,
) -> tvm.ir.Expr: ...
def conv1d_transpose(*args: Any, **kwargs: Any) -> tvm.ir.Expr: ...
def conv2d(
    data: Any,
    weight: Any,
    strides: Any = ...,
    padding: Any = ...,
    dilation: Any = ...,
    groups: Any = ...,
    data_layout: Any = ...,
    kernel_layout: Any = ...,
    out_layout: Any = ...,
    out_dtype: Any = ...,
) -> tvm.ir.Expr: ...
def conv2d_transpose(*args: Any, **kwargs: Any) -> tvm.ir.Expr: ...
def conv3d(
    data: Any,
    weight: Any,
    strides: Any = ...,
    padding: Any = ...,
    dilation: Any = ...,
    groups: Any = ...,
    data_layout: Any = ...,
    kernel_layout: Any = ...,
    out_layout: Any = ...,
    out_dtype: Any = ...,
) -> tvm.ir.Expr: ...
def conv3d_transpose(*args: Any, **kwargs: Any) -> tvm.ir.Expr: ...
def gelu(data: Any) -> tvm.ir.Expr: ...
def gelu_tanh(data: Any) -> tvm.ir.Expr: ...
def group_norm(
    data: Any,
    gamma: Any,
    beta: Any,
    num_groups: Any,
    channel_axis: Any,
    axes: Any,
    epsilon: Any = ...,
    center: Any = ...,
    scale: Any = ...,
) -> tvm.ir.Expr: ...
def layer_norm(
    data: Any, gamma: Any, beta: Any, axes: Any, epsilon: Any = ..., center: Any = ..., scale: Any = ...
) -> tvm.ir.Expr: ...
def log_softmax(data: Any, axis: Any = ...) -> tvm.ir.Expr: ...
def max_pool1d(
    data: Any,
    pool_size: Any = ...,
    strides: Any = ...,
    padding: Any = ...,
    dilation: Any = ...,
    ceil_mode: Any = ...,
    count_include_pad: Any = ...,
    layout: Any = ...,
    out_layout: Any = ...,
) -> tvm.ir.Expr: ...
def max_pool2d(
    data: Any,
    pool_size: Any = ...,
    strides: Any = ...,
    padding: Any = ...,
    dilation: Any = ...,
    ceil_mode: Any = ...,
    count_include_pad: Any = ...,
    layout: Any = ...,
    out_layout: Any = ...,
) -> tvm.ir.Expr: ...
def max_pool3d(
    data: Any,
    pool_size: Any = ...,
    strides: Any = ...,
    padding: Any = ...,
    dilation: Any = ...,
    ceil_mode: Any = ...,
    count_include_pad: Any = ...,
    layout: Any = ...,
    out_layout: Any = ...,
) -> tvm.ir.Expr: ...
def pad(data: Any, pad_width: Any, pad_mode: Any = ..., pad_value: Any = ...) -> Any: ...
def relu(data: Any) -> tvm.ir.Expr: ...
def rms_norm(data: Any, weight: Any, axes: Any = ..., epsilon: Any = ...) -> tvm.ir.Expr: ...
def silu(data: Any) -> tvm.ir.Expr: ...
def softmax(data: Any, axis: Any = ...) -> tvm.ir.Expr: ...
