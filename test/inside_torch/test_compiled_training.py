"""Training under ``torch.compile(backend="torch_tvm")``: optimizers, losses, checkpoints, whole steps."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.checkpoint import checkpoint

from torch_tvm.dynamo import GraphNotCompiled
from torch_tvm.inside_torch.double_backward import DoubleBackward
from torch_tvm.runtime.warnings import FallbackWarning
from torch_tvm.support.errors import InvalidInput

pytestmark = pytest.mark.usefixtures("everything_is_compiled")


def compiled(program: Any, **options: Any) -> Any:
    return torch.compile(program, backend="torch_tvm", **options)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True, foreach=True),
    "adam, one by one": lambda p: torch.optim.Adam(p, 0.01, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True, foreach=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_the_steps_of_eager(name: str) -> None:
    """The state of an optimizer is a constant of dynamo's graph, which a trace of it must not write."""
    start = [torch.randn(3, 2), torch.randn(3)]
    ours, eager = [[nn.Parameter(p.clone()) for p in start] for _ in range(2)]
    optimizers = [OPTIMIZERS[name](parameters) for parameters in (ours, eager)]
    steps = compiled(optimizers[0].step), optimizers[1].step
    for _ in range(3):
        for mine, theirs in zip(ours, eager, strict=True):
            mine.grad = torch.randn_like(mine)
            theirs.grad = mine.grad.clone()
        for step in steps:
            step()
        for mine, theirs in zip(ours, eager, strict=True):
            torch.testing.assert_close(mine, theirs)
            for key, value in optimizers[1].state[theirs].items():
                torch.testing.assert_close(optimizers[0].state[mine][key], value)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.NAdam, torch.optim.RMSprop])
def test_optimizers_that_are_differentiated(kind: Any) -> None:
    """Their state needs a gradient from the second step on, which no guard of dynamo looks at."""

    def gradient(wrap: Callable[[Any], Any], steps: int) -> Any:
        start = torch.linspace(0.1, 1, 3, dtype=torch.float64).requires_grad_()
        moved = start.clone()
        optimizer = kind([moved], 0.01, differentiable=True)
        step = wrap(optimizer.step)
        for turn in range(steps):
            moved.grad = (start * (turn + 1)).sin()
            step()
        return moved.detach(), torch.autograd.grad(moved.square().sum(), start)[0]

    close: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(gradient(compiled, 1), gradient(lambda f: f, 1), **close)
    torch._dynamo.reset()
    with pytest.warns(GraphNotCompiled, match="needed none when the graph was compiled") as told:
        ours = gradient(compiled, 4)
    assert len([each for each in told if each.category is GraphNotCompiled]) == 1
    torch.testing.assert_close(ours, gradient(lambda f: f, 4), **close)


def _unfrozen(linear: nn.Linear, fast: Any, x: torch.Tensor) -> None:
    linear.requires_grad_(False)
    fast(x)
    linear.requires_grad_(True)


def _unfrozen_bias(linear: nn.Linear, fast: Any, x: torch.Tensor) -> None:
    linear.bias.requires_grad_(False)
    fast(x)
    linear.bias.requires_grad_(True)


def _recorded(linear: nn.Linear, fast: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        fast(x)


@pytest.mark.parametrize("change", [_unfrozen, _unfrozen_bias, _recorded])
def test_gradients_that_no_guard_tells_of(change: Callable[..., None]) -> None:
    linear, x = nn.Linear(3, 2), torch.randn(4, 3)
    fast = compiled(linear, options={"guard_filter_fn": lambda guards: [False] * len(guards)})
    change(linear, fast, x)
    with pytest.warns(GraphNotCompiled, match="needed none when the graph was compiled"):
        fast(x).square().sum().backward()
    wanted = torch.autograd.grad(linear(x).square().sum(), list(linear.parameters()))
    torch.testing.assert_close([linear.weight.grad, linear.bias.grad], list(wanted))
    linear.requires_grad_(False).weight.data = torch.randn(5, 3)
    with torch.no_grad(), pytest.raises(InvalidInput, match=r"expected float32\[2, 3\], got float32\[5, 3\]"):
        fast(x)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_between_recurrent_layers(kind: Any) -> None:
    """PyTorch's own parts of these layers forget it."""
    layers = kind(4, 3, num_layers=3, dropout=0.5, bidirectional=kind is nn.GRU, batch_first=True)
    x = torch.randn(2, 5, 4, requires_grad=True)

    def gradients(run: Any) -> Any:
        torch.manual_seed(0)
        y = run(x)[0]
        return y, torch.autograd.grad(y.square().sum(), [x, *layers.parameters()])

    with torch._dynamo.config.patch(allow_rnn=True):
        torch.testing.assert_close(gradients(compiled(layers)), gradients(layers), rtol=1e-4, atol=1e-5)


def test_gradients_of_gradients_of_attention_with_dropout() -> None:
    """PyTorch would draw other numbers for them: it refuses, as it does for its own backends."""
    x = torch.randn(1, 2, 3, 4, requires_grad=True)
    score = compiled(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5))(x).square().sum()
    (slope,) = torch.autograd.grad(score, x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        slope.sum().backward()


def lists(xs: list[torch.Tensor], ys: list[torch.Tensor]) -> Any:
    sums = torch._foreach_add(xs, ys, alpha=2)
    torch._foreach_addcdiv_(sums, xs, torch._foreach_exp(ys), 0.1)
    torch._foreach_lerp_(sums, ys, 0.3)
    torch._foreach_zero_(sums[1:])
    others = torch._foreach_norm(xs, 1), torch._foreach_maximum(xs, ys), torch._foreach_pow(2.0, xs)
    return sums, others, torch._foreach_mul(xs, [2.0, 3.0]), torch._foreach_clamp_max(ys, 0.5)


def test_ops_on_lists_and_clipped_gradients() -> None:
    def tensors() -> Any:
        torch.manual_seed(0)
        return [torch.randn(3), torch.randn(2, 2)], [torch.randn(3), torch.randn(2, 2)]

    torch.testing.assert_close(compiled(lists)(*tensors()), lists(*tensors()))

    def clipped(wrap: Callable[[Any], Any]) -> Any:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        model(torch.randn(2, 4)).square().sum().backward()
        norm = wrap(lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.1, foreach=True))()
        return norm, [p.grad for p in model.parameters()]

    torch.testing.assert_close(clipped(compiled), clipped(lambda f: f))


def test_a_loss_in_the_graph_of_a_whole_step_with_varying_lengths() -> None:
    eager = nn.Sequential(nn.Embedding(20, 8), nn.LayerNorm(8), nn.Linear(8, 20))
    ours = copy.deepcopy(eager)

    def steps(model: nn.Module, wrap: Callable[[Any], Any]) -> list[torch.Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=3)

        fast, found = wrap(loss), []
        torch.manual_seed(0)
        for length in (4, 6, 7):
            optimizer.zero_grad()
            found.append(fast(torch.randint(0, 20, (2, length)), torch.randint(0, 20, (2, length))))
            found[-1].backward()
            optimizer.step()
        return [*found, *model.parameters()]

    for mine, theirs in zip(steps(ours, compiled), steps(eager, lambda f: f), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_gradients_of_gradients_are_pytorchs() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def penalty(wrap: Callable[[Any], Any]) -> Any:
        torch.manual_seed(0)
        x = torch.randn(3, 4, requires_grad=True)
        score = wrap(model)(x)
        (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return slope, torch.autograd.grad((slope.norm(dim=1) - 1).square().mean(), list(model.parameters())[:3])

    with pytest.warns(DoubleBackward, match="runs again in PyTorch"):
        ours = penalty(compiled)
    torch.testing.assert_close(ours, penalty(lambda f: f))


def test_fake_tensors_stay_fake() -> None:
    linear = nn.Linear(8, 4)
    for program in (lambda x: x + 1, linear.requires_grad_(False)):
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert isinstance(compiled(program)(torch.empty(1 << 40, 8)[:2]), FakeTensor)


def test_a_checkpoint_keeps_the_numbers_it_drew() -> None:
    warnings.simplefilter("ignore", FallbackWarning)  # numbers are drawn by PyTorch
    layer = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Tanh())

    def gradients(wrap: Callable[[Any], Any]) -> Any:
        torch.manual_seed(0)
        x = torch.randn(5, 8, requires_grad=True)
        y = wrap(lambda x: checkpoint(layer, x, use_reentrant=False))(x)
        return y, torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])

    torch.testing.assert_close(gradients(compiled), gradients(lambda f: f))


def test_a_checkpoint_with_running_statistics() -> None:
    """The backward pass computes the layers again, whose statistics have changed."""
    eager = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    x, ours = torch.randn(6, 4, requires_grad=True), copy.deepcopy(eager)

    def gradients(model: nn.Module, run: Any) -> Any:
        return torch.autograd.grad(run(x).square().sum(), [x, *model.parameters()])

    found = gradients(ours, compiled(lambda x: checkpoint(ours, x, use_reentrant=False)))
    torch.testing.assert_close(found, gradients(eager, eager), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(eager.named_buffers()))


def _padded(x: torch.Tensor) -> torch.Tensor:
    return F.pad(x, (1, 2, 0, 1), mode="replicate") ** 2 + F.pad(x, (3, 0, -1, 2), mode="replicate")


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, math.inf])
def test_gradients_of_distances_are_kernels(p: float) -> None:
    program = lambda x, y: torch.cdist(x, y, p)
    fast = torch.compile(program, backend="torch_tvm", options={"fallback": False})
    for rows in (5, 7):
        arguments = [torch.randn(rows, 4), torch.randn(6, 4)]
        arguments[1][2] = arguments[0][1]  # a distance of zero has none
        _check_gradients(fast, program, arguments)


def test_gradients_of_padding_and_weight_norm_are_kernels() -> None:
    fast = torch.compile(_padded, backend="torch_tvm", options={"fallback": False})
    for shape in ((2, 3, 4, 5), (3, 3, 6, 5), (1, 3, 2, 7)):
        _check_gradients(fast, _padded, [torch.randn(shape)])
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    weights = [each.detach() for each in normed.parametrizations.weight.parameters()]
    program = lambda x, g, v: torch.conv2d(x, torch._weight_norm(v, g, 0))
    fast = torch.compile(program, backend="torch_tvm", options={"fallback": False})
    _check_gradients(fast, program, [torch.randn(1, 3, 6, 6), *weights])


def test_infinite_gradients_of_softmax() -> None:
    program = lambda grad, result: torch.ops.aten._softmax_backward_data(grad, result, 1, torch.float32)
    arguments = torch.tensor([[5.0, 1.0, -1.0]]), torch.tensor([[math.inf, 0.5, 0.25]])
    torch.testing.assert_close(compiled(program)(*arguments), program(*arguments), equal_nan=True)


POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "adaptive": lambda x: F.adaptive_avg_pool3d(x, (2, 3, 1)),
    "fractional, of windows that overlap": lambda x: F.fractional_max_pool3d(
        x, 2, output_size=(2, 3, 3), _random_samples=torch.full((2, 3, 3), 0.4)
    ),
    "fractional, in two dimensions": lambda x: F.fractional_max_pool2d(
        x[0], 2, output_size=2, _random_samples=torch.full((3, 4, 2), 0.7)
    ),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_of_pooling_are_kernels(name: str) -> None:
    """With sizes that vary the gradient reads a tensor that was flattened, and has its sizes as numbers."""
    fast = torch.compile(POOLINGS[name], backend="torch_tvm", options={"fallback": False})
    for sizes in ((6, 5), (5, 7)):
        _check_gradients(fast, POOLINGS[name], [torch.randn(2, 3, 4, *sizes)])


def test_a_depthwise_convolution_behind_a_pool_of_unknown_size() -> None:
    """Halves of sizes have several spellings, which TVM's fusion takes for different sizes."""
    layers = [nn.Conv2d(4, 16, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)]
    model = nn.Sequential(*layers)
    fast = compiled(model, dynamic=True, options={"fallback": False})
    for batch, height in ((2, 12), (3, 17)):
        _check_gradients(fast, model, [torch.randn(batch, 4, height, height + 3)])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_losses_of_several_labels(reduction: str) -> None:
    """PyTorch's own parts of it add what follows the last label."""
    labels = torch.tensor([[0, 1, -1, 0, 0], [4, -1, 2, 2, 2], [-1, 0, 0, 0, 0], [1, 0, 3, 4, 2]])
    program = lambda x: F.multilabel_margin_loss(x, labels, reduction=reduction)
    _check_gradients(compiled(program), program, [torch.randn(4, 5)])


def _check_gradients(fast: Any, program: Any, arguments: list[torch.Tensor]) -> None:
    ours, theirs = ([each.clone().requires_grad_() for each in arguments] for _ in range(2))
    result, expected = fast(*ours), program(*theirs)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(result)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    for own, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, wanted.grad, rtol=1e-4, atol=1e-4)
