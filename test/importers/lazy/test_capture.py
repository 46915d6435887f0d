"""What a capture tells apart, what it keeps, and what it refuses."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import torch_tvm
from torch_tvm import ImportFailed, InvalidInput, TorchModule, import_lazy
from torch_tvm.importers.lazy import device


def line_of(function: Callable[..., Any], offset: int) -> str:
    return f"{__file__}:{function.__code__.co_firstlineno + offset}"


def agrees(function: Callable[..., Any], *args: Any) -> TorchModule:
    """Import, run on copies, and compare results and written arguments with eager."""
    ours, theirs = copy.deepcopy(args), copy.deepcopy(args)
    module = import_lazy(function, copy.deepcopy(args))
    torch.testing.assert_close(module(*ours), function(*theirs))
    torch.testing.assert_close(ours, theirs)
    module.verify()
    return module


def test_updates_through_views_are_kept() -> None:
    def program(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x * 2
        y[:, 0] = 3
        y[1].add_(1)
        y.view(-1)[2:4].mul_(x[0, :2])
        return y, y.t()

    agrees(program, torch.randn(3, 4))


def test_written_arguments_are_written_back() -> None:
    def program(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x[0].add_(y)
        return x.sum()

    module = agrees(program, torch.randn(3, 4), torch.randn(4))
    assert module.writes == [0]


def test_buffers_are_state() -> None:
    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.tensor(0))
            self.register_buffer("total", torch.zeros(3))
            self.register_buffer("scale", torch.full((3,), 2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            self.total.add_(x * self.scale)
            return self.total / self.count

    ours, theirs, x = Counter(), Counter(), torch.randn(3)
    module = import_lazy(ours, (x,))
    assert set(module.state) == {"count", "total"}
    for _ in range(3):
        torch.testing.assert_close(module(x), theirs(x))
    assert ours.count == 3 and torch.equal(ours.total, theirs.total)


def test_batch_norm_in_training_updates_its_statistics() -> None:
    ours = torch.nn.BatchNorm1d(4)
    theirs = copy.deepcopy(ours)
    x = torch.randn(5, 4)
    module = import_lazy(ours, (x,))
    torch.testing.assert_close(module(x), theirs(x).detach())
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked == 1


def test_parameters_are_weights_by_name() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(40, 50), torch.nn.ReLU(), torch.nn.Linear(50, 3))
    module = import_lazy(model, (torch.randn(2, 40),))
    assert {"0.weight", "2.weight"} <= set(module.weights)
    assert module.weights["0.weight"].data_ptr() == model[0].weight.data_ptr()
    assert model[0].weight.device.type == "cpu"


def test_nested_arguments_and_results() -> None:
    def program(pair: tuple[torch.Tensor, torch.Tensor], scale: float, named: dict[str, torch.Tensor]) -> Any:
        return {"sum": pair[0] + pair[1] * scale, "rest": [named["a"], None, 3, pair[0]]}

    module = agrees(program, (torch.randn(2), torch.randn(2)), 2.5, {"a": torch.ones(2, dtype=torch.int64)})
    with pytest.raises(InvalidInput, match=r"argument 'scale' was fixed to 2.5"):
        module((torch.randn(2), torch.randn(2)), 3.0, {"a": torch.ones(2, dtype=torch.int64)})


def test_arguments_of_rank_0_are_not_numbers() -> None:
    agrees(lambda x, n: x * 2 + n, torch.randn(3), torch.tensor(2.0))
    module = import_lazy(lambda x, n: x * 2 + n, (torch.randn(3), torch.tensor(2)))
    torch.testing.assert_close(module(torch.ones(3), torch.tensor(5)), torch.full((3,), 7.0))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.where(x > 0, x, -x),
        lambda x: torch.nn.functional.hardtanh(x, -1.0, float("inf")),
        lambda x: x[:, -2:],
        lambda x: x.unfold(1, 2, 1) + x.mean(),
        lambda x: torch.sort(x, 1)[0] + torch.arange(4) * 0.5,
        lambda x: (x.long() * 2.5, x.long() // 2),
        lambda x: torch.stack(torch.split(x, 2, 1)),
        lambda x: torch.index_select(x, 1, torch.tensor([2, 0])),
        lambda x: x.view(torch.int32) + 1,
        lambda x: (torch.tensor(3) ** -1.0 + x, torch.tensor(3) ** 2, 2 ** torch.tensor(3), 2 ** x.int()),
        lambda x: torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True),
    ],
)
def test_ops_of_all_kinds(function: Callable[..., Any]) -> None:
    agrees(function, torch.randn(3, 4))


def test_tensors_that_the_program_brings_along_are_constants() -> None:
    table = torch.randn(4)
    agrees(lambda x: x + table + torch.ones(4), torch.randn(3, 4))


def test_constants_can_be_read() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if bool((torch.arange(3) < 5).all()) else x

    agrees(program, torch.randn(3))


def test_reading_a_value_is_refused_at_its_line() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        return y if y.sum() > 0 else eval("x")  # nor does this script

    with pytest.raises(ImportFailed, match=re.escape(line_of(program, 2))) as failure:
        import_lazy(program, (torch.randn(3),))
    assert "reads a value" in str(failure.value)


def test_a_generator_of_the_programs_own_is_refused() -> None:
    with pytest.raises(ImportFailed, match="generator"):
        import_lazy(lambda x: torch.bernoulli(x, generator=torch.Generator()), (torch.rand(3),))


def test_draws_along_copies_of_transposed_tensors_are_refused() -> None:
    with pytest.raises(ImportFailed, match="not contiguous"):
        import_lazy(lambda x: torch.rand_like(x.t().contiguous()), (torch.randn(3, 4),))


def test_sizes_that_depend_on_data_are_those_of_each_call() -> None:
    def program(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.masked_select(x, x > 0), x[x < 0] * 2, torch.unique(x.long())

    module = import_lazy(program, (torch.randn(3, 4),))
    for x in (torch.ones(3, 4), torch.randn(3, 4)):
        torch.testing.assert_close(module(x), program(x))


def test_a_branch_on_data_is_refused_with_the_op() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        found = torch.masked_select(x, x > 0)
        return found if found.numel() > 2 else eval("x")  # nor does this script

    with pytest.raises(ImportFailed, match="masked_select"):
        import_lazy(program, (torch.randn(3),))


def test_cpu_is_where_a_tensor_is() -> None:
    def program(x: torch.Tensor) -> list[torch.Tensor]:
        x.to("cpu").add_(1)  # the same tensor
        here = torch.device("cpu")
        made = torch.zeros(3, device=here) + torch.tensor([1.0, 2.0, 3.0], device="cpu")
        return [
            x.cpu() + 1,
            x.to("cpu:0", torch.float64),
            x.to(device=here),
            made.add_(torch.ops.aten.arange(3)),
        ]

    agrees(program, torch.randn(3))


def test_numbers_that_ops_draw_are_in_the_graph() -> None:
    aten, cpu = torch.ops.aten, torch.device("cpu")

    def program(x: torch.Tensor) -> list[torch.Tensor]:
        return [
            x + aten.randn([2, 3], dtype=torch.float64, device=cpu),
            aten.randint(high=1000, size=[2, 3]),
            aten.rand([2, 3], pin_memory=False, layout=torch.strided),
            torch.rand_like(x, device="cpu")[:, aten.randperm(3)],
            *aten.native_dropout(x, 0.5, True),
            *aten.native_dropout(x, 0.0, True),
            aten.native_dropout(x, 0.5, False)[0],
        ]

    x = torch.randn(2, 3)
    module = import_lazy(program, (x,))
    for seed in (3, 4):
        torch.manual_seed(seed)
        found = module(x)
        torch.manual_seed(seed)
        torch.testing.assert_close(found, program(x), rtol=0, atol=0)


def test_leaving_the_device_is_refused_at_its_line() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy()) + 1

    with pytest.raises(ImportFailed, match=re.escape(line_of(program, 1))):
        import_lazy(program, (torch.randn(3),))


def test_an_error_of_the_program_has_its_line() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return x @ x

    with pytest.raises(ImportFailed, match=re.escape(line_of(program, 1))):
        import_lazy(program, (torch.randn(3, 4),))


def test_wrong_programs_are_refused() -> None:
    with pytest.raises(InvalidInput, match="tuple"):
        import_lazy(torch.nn.ReLU(), torch.randn(3))
    with pytest.raises(InvalidInput, match="import_torchscript"):
        import_lazy(torch.jit.trace(torch.nn.ReLU(), (torch.randn(3),)), (torch.randn(3),))


def test_nothing_global_stays_changed() -> None:
    before = torch.get_default_device(), torch.get_default_dtype(), torch.is_grad_enabled()
    x = torch.randn(3)
    import_lazy(torch.nn.Hardtanh(), (x,))
    assert before == (torch.get_default_device(), torch.get_default_dtype(), torch.is_grad_enabled())
    assert not torch._C._lazy._get_force_fallback()
    import torch._lazy.ts_backend as backend

    backend.init()
    eager = torch.where(x.to("lazy") > 0, 1.0, 2.0)
    torch.testing.assert_close(eager.cpu(), torch.where(x > 0, 1.0, 2.0))


def test_a_second_start_of_the_device_is_harmless() -> None:
    device.start()
    device.start()
    assert (torch.ones(2).to("lazy") + 1).cpu().tolist() == [2.0, 2.0]


def test_a_step_with_gradients() -> None:
    weight = torch.randn(4, 3, requires_grad=True)

    def step(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        w = x.new_zeros(4, 3) + weight.detach()
        w.requires_grad_()
        loss = torch.nn.functional.scaled_dot_product_attention(x @ w, x @ w, x @ w).square().sum()
        (gradient,) = torch.autograd.grad(loss, w)
        return loss.detach(), w.detach() - 0.1 * gradient

    agrees(step, torch.randn(2, 5, 4))


@dataclass
class Open:
    shift: torch.Tensor


@dataclass(frozen=True)
class Closed:
    scale: float
    axes: range = range(1, 3)


@pytest.mark.parametrize(
    ("mutable", "function"),
    [
        (Open(torch.ones(4)), lambda x, given: x + given.shift),
        (np.ones(4, np.float32), lambda x, given: x + torch.from_numpy(given)),
        ({1, 2}, lambda x, given: x + len(given)),
        (bytearray(b"a"), lambda x, given: x + given[0]),
        (Closed([2.0]), lambda x, given: x * given.scale[0]),  # type: ignore[arg-type]
    ],
    ids=["object", "array", "set", "bytearray", "frozen object with a list"],
)
def test_an_argument_that_may_change_is_refused(mutable: Any, function: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInput, match=r"(?s)argument 'given'.*may change between calls"):
        import_lazy(function, (torch.ones(4), mutable))


def test_arguments_that_cannot_change_are_fixed() -> None:
    def function(x: torch.Tensor, a: Any, b: Any, c: Any, d: Any) -> torch.Tensor:
        return (x * a.scale)[a.axes.start :].to(b) + float(c) + d.__len__()

    arguments = (torch.randn(5), Closed(2.0), torch.float64, np.float32(0.5), "text" * 100)
    compiled = torch_tvm.compile(function, arguments, frontend="lazy")
    torch.testing.assert_close(compiled(*arguments), function(*arguments))
    with pytest.raises(InvalidInput, match=r"argument 'a': is fixed to .*Closed\(scale=2.0") as caught:
        compiled(arguments[0], torch.ones(300), *arguments[2:])
    assert "got float32[300]" in str(caught.value)
    with pytest.raises(
        InvalidInput, match=r"argument 'd': is fixed to 'texttext.*\.\.\. by the example arguments, got 3"
    ):
        compiled(*arguments[:4], 3)


def test_contiguous_beside_a_write_of_other_memory() -> None:
    """As attention with a bias that is added in place, or an accumulator beside it."""

    def attention(x: torch.Tensor) -> torch.Tensor:
        scores = x @ x.transpose(0, 1)
        scores += 1.0
        total = torch.zeros(3)
        total += scores.softmax(-1).sum(0)
        return x.transpose(0, 1).contiguous().view(2, -1) + total.sum()

    agrees(attention, torch.randn(3, 4))


def _written_base(x: torch.Tensor) -> torch.Tensor:
    b = x * 1
    y = b.transpose(0, 1).contiguous()
    b += 1
    return y


def _written_copy(x: torch.Tensor) -> torch.Tensor:
    b = x * 1
    b.t()[:2].contiguous().view(-1)[0] = 5.0
    return b


def _written_out(x: torch.Tensor) -> torch.Tensor:
    y = (x * 1).t()
    z = y.contiguous()
    torch.add(x.t(), 1, out=y)
    return z


def _written_alias(x: torch.Tensor) -> torch.Tensor:
    b = x * 1
    alias = b.detach()
    y = b.t().contiguous()
    alias += 1
    return y


def _written_reshaped(x: torch.Tensor) -> torch.Tensor:
    b = x * 1
    b.mT.flatten().add_(1)
    return b


def _written_shifted(x: torch.Tensor) -> torch.Tensor:
    b = x.t() * 1  # transposed in memory, as eager keeps it
    b.reshape(-1).add_(1)
    return b


def _written_data(x: torch.Tensor) -> torch.Tensor:
    b = x * 1
    b.t().contiguous().data.add_(1)
    return b


def _written_by_an_activation(x: torch.Tensor) -> torch.Tensor:
    b = x * 1
    torch.nn.functional.relu(b.t().contiguous(), inplace=True)
    return b


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "function",
    [
        _written_base,
        _written_copy,
        _written_out,
        _written_alias,
        _written_data,
        _written_by_an_activation,
        _written_reshaped,
        _written_shifted,
    ],
)
def test_contiguous_beside_a_write_of_its_memory_is_refused(function: Callable[..., Any], mode: Any) -> None:
    with (
        mode(),
        pytest.raises(ImportFailed, match=r"test_capture.py:\d+: a copy of a view beside a write"),
    ):
        import_lazy(function, (torch.randn(3, 4),))


@pytest.mark.parametrize(
    "program",
    [
        lambda x: x * x.sum().tolist(),
        lambda x: x * torch.full((2,), 3).tolist()[0],
        lambda x: x * torch.arange(6).view(2, 3).fill_(4).tolist()[1][2],
        lambda x: x * len(torch.zeros(0, 3).tolist()),
    ],
)
def test_lists_of_what_lies_in_tensors(program: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """As a whole, ``tolist`` reads what lies on the lazy device meanwhile: zeros, or the example arguments."""
    compiled = torch_tvm.compile(program, (torch.randn(6),), frontend="lazy", fallback=False)
    for _ in range(2):
        x = torch.randn(6)
        torch.testing.assert_close(compiled(x), program(x))


def test_new_tensors_with_strides_beyond_their_size() -> None:
    """The lazy device makes them views of memory that is too small."""
    program = lambda x: x.new_empty_strided((2, 3), (20, 5)).fill_(2) + x.new_empty_strided((3,), (4,)).zero_()
    x = torch.randn(2)
    compiled = torch_tvm.compile(program, (x,), frontend="lazy", fallback=False)
    assert torch.equal(compiled(x), program(x))


@pytest.mark.parametrize(
    "program",
    [
        lambda x: torch.as_strided(x.transpose(0, 2).contiguous(), (2, 2), (3, 1)),
        lambda x: x[None].contiguous(memory_format=torch.channels_last).as_strided((2, 2), (3, 1), 0),
        lambda x: torch.ops.aten.as_strided(x.mT.reshape(-1), (2, 2), (3, 1)),
    ],
)
def test_strides_of_a_copy_in_another_order_are_refused(program: Callable[..., Any]) -> None:
    """The numbers of the memory in its old order came back."""
    with pytest.raises(ImportFailed, match=r"test_capture.py:\d+: as_strided of a copy in another order"):
        import_lazy(program, (torch.arange(24.0).reshape(3, 2, 4),))


def test_strides_of_a_copy_in_the_same_order() -> None:
    x = torch.arange(24.0).reshape(3, 2, 4)
    for program in (
        lambda x: torch.as_strided(x.contiguous(), (2, 2), (3, 1)),
        lambda x: torch.as_strided(x.reshape(4, 6), (2, 2), (3, 1)),
    ):
        assert torch.equal(import_lazy(program, (x,))(x), program(x))
