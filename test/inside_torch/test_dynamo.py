"""``torch.compile(model, backend="torch_tvm")``."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch._higher_order_ops.effects import _EffectType, _register_effectful_op
from torch.utils._pytree import tree_leaves

from torch_tvm.dynamo import GraphNotCompiled
from torch_tvm.runtime.warnings import FallbackWarning
from torch_tvm.runtime.weights import packed
from torch_tvm.runtime.weights.packed import Weights
from torch_tvm.support.errors import InvalidInput


@pytest.fixture(autouse=True)
def everything_is_compiled() -> Iterator[None]:
    """A graph that falls back to PyTorch fails a test, unless the test expects it."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraphNotCompiled)
        yield


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that weights are packed."""
    found: list[int] = []
    borrow = Weights.borrow

    def counted(self: Weights, *args: Any) -> None:
        found.append(1)
        borrow(self, *args)

    monkeypatch.setattr(Weights, "borrow", counted)
    return found


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    ).eval()


def compiled(program: Any, **options: Any) -> Any:
    return torch.compile(program, backend="torch_tvm", options=options or None)


def test_the_backend_is_found_without_an_import() -> None:
    assert "torch_tvm" in torch._dynamo.list_backends(exclude_tags=None)


@torch.no_grad()
def test_inference_with_dynamic_batch_and_changed_weights() -> None:
    model = convnet()
    fast = compiled(model, fallback=False)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(fast(x), model(x))
    model[4].weight.mul_(2)
    torch.testing.assert_close(fast(x), model(x))
    model[4].weight.data = torch.randn(10, 512)
    torch.testing.assert_close(fast(x), model(x), atol=1e-4, rtol=1e-4)


def test_graph_breaks() -> None:
    def broken(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        c = torch.relu(a) + b
        torch._dynamo.graph_break()
        return c * 2 + a.sum()

    a, b = torch.randn(4, 4), torch.randn(4)
    torch.testing.assert_close(compiled(broken)(a, b), broken(a, b))


def test_views_and_mutation_behave_as_in_eager() -> None:
    def views(a: torch.Tensor) -> Any:
        b = a + 1
        return a.view(-1), b, b.t(), a

    a = torch.randn(4, 3)
    flat, b, transposed, same = compiled(views)(a)
    assert same is a and flat.data_ptr() == a.data_ptr()
    assert transposed.data_ptr() == b.data_ptr() and torch.equal(transposed, (a + 1).t())

    def change(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x * 2

    ours, eager = a.clone(), a.clone()
    assert torch.equal(compiled(change)(ours), change(eager))
    assert torch.equal(ours, eager)


def assert_same(ours: Any, eager: Any) -> None:
    """Values, dtypes, shapes, strides and need of gradients; no fake tensor."""
    ours, eager = tree_leaves(ours), tree_leaves(eager)
    assert len(ours) == len(eager)
    for a, b in zip(ours, eager, strict=True):
        assert type(a) is type(b)
        if isinstance(b, torch.Tensor):
            torch.testing.assert_close(a, b, check_stride=True)
            assert a.requires_grad == b.requires_grad
        else:
            assert a == b


def shared(outputs: Any, inputs: Any) -> list[int]:
    """A number for the storage of each tensor."""
    places = [t.untyped_storage().data_ptr() for t in tree_leaves((inputs, outputs)) if t.numel()]
    return [places.index(place) for place in places]


def of_arguments(x: torch.Tensor) -> Any:
    expanded = x[:1].unsqueeze(1).expand(-1, x.shape[0], -1), x[0].expand(x.shape[0], -1)
    parts = x.chunk(2), x.unbind(1), x.split(x.shape[0] // 2), x[x.shape[0] - 1], x[::2], x.unfold(0, 3, 2)
    return x[x.shape[0] // 2 :], x.sum(), expanded, parts


def of_a_changed_argument(x: torch.Tensor) -> Any:
    v = x[x.shape[0] // 2 :]
    v.mul_(3)
    return v, x.t()


def of_results(x: torch.Tensor) -> Any:
    y, z = x * 2, x.sum(0)
    others = (
        x.t() + 1,
        torch.relu(x.t()).unsqueeze(0),
        (x @ x.t()).t(),
        (x * 3)[:, :3],
        (x + 1).sum(0).expand(8, 4),
    )
    return y[y.shape[0] // 2 :], y.t(), y, z.expand(x.shape[0], -1), others


@pytest.mark.filterwarnings("ignore::torch_tvm.FallbackWarning")
@pytest.mark.parametrize(
    ("program", "gradient"),
    [(of_arguments, False), (of_arguments, True), (of_a_changed_argument, False), (of_results, False)],
)
def test_views_when_sizes_change(program: Any, gradient: bool) -> None:
    fast = compiled(program)
    for rows in (6, 8, 10, 6):
        x = torch.randn(rows, 4)
        ours, eager = [x.clone().requires_grad_(gradient) for _ in range(2)]
        got, wanted = fast(ours), program(eager)
        assert_same((got, ours), (wanted, eager))
        assert shared(got, ours) == shared(wanted, eager)


def test_results_of_channels_last_arguments_keep_the_layout() -> None:
    model = convnet()[:3]
    fast = compiled(lambda x: (model(x), x.mean(1, keepdim=True), nn.functional.max_pool2d(x, 2)))
    with torch.no_grad():
        for batch in (2, 3):
            x = torch.randn(batch, 3, 8, 8).to(memory_format=torch.channels_last)
            wanted = model(x), x.mean(1, keepdim=True), nn.functional.max_pool2d(x, 2)
            assert_same(fast(x), wanted)


def transformed(x: torch.Tensor) -> Any:
    def f(t: torch.Tensor) -> torch.Tensor:
        return (t.sin() * t).sum()

    grads = torch.func.grad(f)(x), torch.vmap(torch.func.grad(f))(x), torch.func.jacrev(torch.sin)(x[0])
    return grads, torch.vmap(f)(x), torch.func.jvp(f, (x,), (x,)), torch.func.hessian(f)(x[0])


def through_data(x: torch.Tensor) -> Any:
    return x.data + 1, x.detach() * 2, (x * 2).data


def under_autocast(x: torch.Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x @ x.t(), x.exp()


def switched(x: torch.Tensor) -> Any:
    with torch.no_grad():
        a = x * 2
    with torch.enable_grad():
        return a, x * 3


def checkpointed(x: torch.Tensor) -> Any:
    with torch.set_grad_enabled(x.requires_grad):
        return torch.utils.checkpoint.checkpoint(lambda t: t.sin() * t, x, use_reentrant=False)


@pytest.mark.parametrize(
    ("program", "gradient"),
    [
        (transformed, False),
        (switched, False),
        (through_data, True),
        (through_data, False),
        (under_autocast, False),
        (checkpointed, False),
    ],
)
def test_programs_that_only_autograd_can_trace(program: Any, gradient: bool) -> None:
    fast = compiled(program)
    for seed in range(2):
        torch.manual_seed(seed)
        x = torch.randn(3, 4, requires_grad=gradient)
        assert_same(fast(x), program(x))


def test_an_argument_on_another_device_runs_in_pytorch() -> None:
    x, away = torch.randn(3), torch.randn(3, device="meta")
    with pytest.warns(GraphNotCompiled, match="is on meta, the code is for cpu"):
        ours, there = compiled(lambda a, b: (a + 1, b + 1))(x, away)
    assert torch.equal(ours, x + 1) and there.is_meta


def test_what_autograd_refuses_runs_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_tvm.dynamo as backend

    def refuse(*args: Any, **kwargs: Any) -> Any:
        torch._C._functorch._grad_increment_nesting()
        raise RuntimeError("no way")

    monkeypatch.setattr(backend, "_through_aot", lambda options, count: refuse)
    x = torch.randn(3)
    with pytest.warns(GraphNotCompiled, match="no way"):
        assert torch.equal(compiled(through_data)(x)[0], x + 1)
    assert torch._C._functorch.get_dynamic_layer_stack_depth() == 0


def in_place(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight.mul_(1.5)


def through_the_attribute(weight: torch.Tensor) -> None:
    weight.data[0, 0] += 3


def in_inference_mode(weight: torch.Tensor) -> None:
    with torch.inference_mode():
        weight.add_(0.5)


def through_numpy(weight: torch.Tensor) -> None:
    weight.detach().numpy()[-1, -1] = 7


def of_other_memory(weight: torch.Tensor) -> None:
    weight.data = torch.randn(weight.shape)


def of_its_storage(weight: torch.Tensor) -> None:
    size, kept = weight.untyped_storage().nbytes(), weight.detach().clone()
    weight.untyped_storage().resize_(0)
    weight.untyped_storage().resize_(size)
    weight.data.copy_(kept * 2)


def of_the_whole_tensor(weight: torch.Tensor) -> None:
    torch.utils.swap_tensors(weight, nn.Parameter(torch.randn(weight.shape)))


CHANGES = [
    in_place,
    through_the_attribute,
    in_inference_mode,
    through_numpy,
    of_other_memory,
    of_its_storage,
    of_the_whole_tensor,
]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_every_change_of_a_weight_is_seen_and_packed_once(mode: Any, packings: list[int]) -> None:
    model = nn.Sequential(nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, 5)).eval()
    fast, x = compiled(model), torch.randn(2, 300)
    close = functools.partial(torch.testing.assert_close, atol=1e-3, rtol=1e-4)  # the weights grow
    with mode():
        for change in CHANGES:
            fast(x)
            for index in (0, 2):
                change(model[index].weight)
                del packings[:]
                close(fast(x), model(x))
                assert packings == [1]
                fast(x)
                assert packings == [1]
        model[2] = nn.Linear(40, 5)
        close(fast(x), model(x))
        model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
        close(fast(x), model(x))
        other = copy.deepcopy(fast)
        for parameter in other.parameters():
            parameter.data.mul_(2)
        close(other(x), other._orig_mod(x))
        close(fast(x), model(x))


@torch.no_grad()
def test_weights_that_change_at_each_call_are_not_watched_until_they_rest(packings: list[int]) -> None:
    model = nn.Linear(50, 40)
    fast, x = compiled(model), torch.randn(2, 50)
    for _ in range(8):
        model.weight.data.mul_(1.1)
        torch.testing.assert_close(fast(x), model(x))
    fast(x)
    del packings[:]
    model.weight.mul_(2)
    for _ in range(3):
        torch.testing.assert_close(fast(x), model(x))
    assert len(packings) <= 2


@torch.no_grad()
def test_only_weights_that_changed_are_packed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    run = packed.run_weights_program

    def counted(*args: Any) -> Any:
        results = run(*args)
        made.append(sum(result is not None for result in results))
        return results

    monkeypatch.setattr(packed, "run_weights_program", counted)
    model = nn.Sequential(*[nn.Linear(70, 70) for _ in range(6)])
    fast, x = compiled(model), torch.randn(2, 70)
    fast(x)
    assert made == [12]
    for change in (lambda w: w.mul_(1.5), through_numpy, of_other_memory):
        del made[:]
        change(model[2].weight)
        change(model[4].weight)
        torch.testing.assert_close(fast(x), model(x), atol=1e-3, rtol=1e-4)
        assert made == [2]
        for _ in range(2):
            fast(x)
        assert made == [2]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(20, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x))


@torch.no_grad()
def test_blocks_that_share_code_are_packed_once_each(packings: list[int]) -> None:
    blocks = [Block() for _ in range(4)]
    eager, x = copy.deepcopy(blocks), torch.randn(3, 20)
    for block in blocks:
        block.compile(backend="torch_tvm")
    for _ in range(3):
        ours, wanted = x, x
        for block, reference in zip(blocks, eager, strict=True):
            ours, wanted = block(ours), reference(wanted)
        torch.testing.assert_close(ours, wanted)
    assert packings == [1] * 4
    kept = weakref.ref(blocks[0].linear.weight)
    del blocks, block
    torch._dynamo.reset()
    gc.collect()
    assert kept() is None


@torch.no_grad()
def test_a_weight_without_memory_is_refused() -> None:
    model, x = nn.Linear(8, 8), torch.randn(2, 8)
    fast = compiled(model)
    fast(x)
    model.weight.untyped_storage().resize_(0)
    with pytest.raises(InvalidInput, match=r"the memory of a parameter of shape \[8, 8\] is gone"):
        fast(x)


@pytest.mark.filterwarnings("ignore::torch_tvm.FallbackWarning")
def test_training_takes_the_steps_of_eager() -> None:
    eager = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))
    ours = copy.deepcopy(eager)
    fast = compiled(ours)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (eager, ours)]
    for _ in range(3):
        x, y = torch.randn(5, 8), torch.randint(0, 3, (5,))
        for model, optimizer in zip((eager, fast), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        for a, b in zip(eager.parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_a_graph_that_cannot_be_compiled_runs_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_tvm.dynamo as backend

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(backend, "compile_graph", refuse)
    a = torch.randn(3)
    with pytest.warns(GraphNotCompiled, match=r"a graph of 2 ops runs in PyTorch.*out of ideas"):
        assert torch.equal(compiled(lambda x: torch.relu(x) + 1)(a), torch.relu(a) + 1)
    torch._dynamo.reset()
    with pytest.raises(Exception, match="out of ideas"):
        compiled(lambda x: torch.relu(x) + 2, fallback=False)(a)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 3}, r"unknown option 'speed'"),
        ({"scheduler": "auto_scheduler"}, r"it left TVM"),
        ({"opt_level": 9}, r"expected a number from 0 to 3"),
        ({"min_block_size": 0}, r"min_block_size.*a number from 1 on, got 0"),
        ({"debug": 1}, r"debug.*expected a bool"),
        ({"torch_executed_ops": "aten.relu"}, r"expected a list of names"),
    ],
)
def test_an_option_that_does_not_fit_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        compiled(lambda x: x + 1, **options)(torch.randn(3))


def test_ops_and_small_graphs_that_pytorch_runs(capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.randn(3)
    with pytest.warns(FallbackWarning, match=r"relu: the options name it"):
        ours = compiled(lambda x: torch.relu(x) + 1, torch_executed_ops=["aten::relu"], debug=True)(x)
    assert torch.equal(ours, torch.relu(x) + 1)
    assert "ops in PyTorch: 1" in capsys.readouterr().out
    torch._dynamo.reset()
    assert torch.equal(compiled(lambda x: torch.relu(x) + 2, min_block_size=3, debug=True)(x), torch.relu(x) + 2)
    assert not capsys.readouterr().out


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 2


@pytest.mark.parametrize("gradient", [False, True])
def test_the_warning_names_line_and_module(gradient: bool) -> None:
    line = inspect.getsourcelines(_Scaled.forward)[1] + 1
    model = _Scaled().requires_grad_(gradient)
    with pytest.warns(FallbackWarning, match=rf"test_dynamo.py:{line}: torch.aten.sigmoid: .* in inner.1$"):
        compiled(model, torch_executed_ops=["aten::sigmoid"])(torch.randn(2, 3))


def test_effects_stay_in_their_order() -> None:
    """AOTAutograd calls such ops with a token each: checks of matrices, and ops of the user's."""
    seen: list[Any] = []

    @torch.library.custom_op("test_dynamo::note", mutates_args=())
    def note(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.sum().item())
        return x.clone()

    @torch.library.custom_op("test_dynamo::pair", mutates_args=())
    def pair(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append("pair")
        return x.clone(), x * 2

    note.register_fake(torch.empty_like)
    pair.register_fake(lambda x: (torch.empty_like(x), torch.empty_like(x)))
    for op in (torch.ops.test_dynamo.note.default, torch.ops.test_dynamo.pair.default):
        _register_effectful_op(op, _EffectType.ORDERED)

    def program(x: torch.Tensor) -> torch.Tensor:
        first, second = torch.ops.test_dynamo.pair(torch.ops.test_dynamo.note(x * 2) + 1)
        torch.ops.test_dynamo.note(x + 5)
        return torch.ops.test_dynamo.note(first * 3) + second

    x = torch.ones(2)
    expected, eagerly = program(x), list(seen)
    with pytest.warns(FallbackWarning):
        fast = compiled(program)
        fast(x)
    seen.clear()
    assert torch.equal(fast(x), expected) and seen == eagerly

    decompose = compiled(torch.linalg.cholesky, fallback=False)
    good = (torch.eye(3) * 4).requires_grad_()
    torch.testing.assert_close(decompose(good), torch.linalg.cholesky(good))
    with pytest.raises(RuntimeError, match="not positive-definite"):
        decompose(-good)


class _NormInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        n = self.norm
        y = nn.functional.batch_norm(self.linear(x), n.running_mean, n.running_var, n.weight, n.bias, True, 0.1)
        seen.add_(1)
        return y


def test_buffers_and_arguments_that_a_graph_with_weights_writes() -> None:
    eager = _NormInTraining()
    model = copy.deepcopy(eager)
    compiled = torch.compile(model, backend="torch_tvm")
    seen, expected = torch.zeros(2), torch.zeros(2)
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(5, 3)
            torch.testing.assert_close(compiled(x, seen), eager(x, expected))
            torch.testing.assert_close(seen, expected)
            torch.testing.assert_close(dict(model.named_buffers()), dict(eager.named_buffers()))
