"""Random numbers: after a seed the same as eager's, in the program's order, anew on each call, and as many of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torch_tvm
from torch_tvm.dialect.mlir import new_context
from torch_tvm.passes.canonical_ops import DRAWING
from torch_tvm.support.errors import ImportFailed, InvalidInput


class Creates(nn.Module):
    """Tensors of random numbers."""

    def forward(self, x: Tensor) -> list[Tensor]:
        n = x.shape[0]
        return [
            torch.rand(3, 5), torch.rand(n, 5, dtype=torch.float64), torch.rand(40, 3, dtype=torch.bfloat16),
            torch.randn(3, 7), torch.randn(n, 17), torch.randn(40, 3, dtype=torch.float16), torch.rand(()),
            torch.randint(10, (3, 5)), torch.randint(-3, 7, (n,), dtype=torch.int32), torch.randint(0, 1 << 40, (4,)),
            torch.randint(2, 10, (3,), dtype=torch.float32), torch.randint(0, 2, (9,), dtype=torch.bool),
            torch.randperm(10), torch.randperm(7, dtype=torch.int32), torch.rand(0, 4), torch.normal(0.5, 2.0, [3, 4]),
        ]  # fmt: skip


class Likes(nn.Module):
    """As many numbers as there are in a tensor, or drawn from its values."""

    def forward(self, x: Tensor) -> list[Tensor]:
        p = x.abs().clamp(0, 1)
        return [
            torch.rand_like(x), torch.randn_like(x, dtype=torch.float64), torch.randint_like(x, 7),
            torch.randint_like(x, -4, 7), torch.bernoulli(p), torch.bernoulli(p.double()), torch.bernoulli(x, 0.3),
            torch.multinomial(p, 3), torch.multinomial(p, 30, True), torch.multinomial(p[0], 1),
            torch.normal(x, p), torch.normal(x, 2.0), torch.normal(0.5, p), torch.poisson(p * 4),
            torch.binomial(torch.full_like(x, 5), p), torch._standard_gamma(p + 0.1),
            F.dropout(x, 1.0),
        ]  # fmt: skip


class InPlace(nn.Module):
    """Tensors filled with random numbers."""

    def forward(self, x: Tensor) -> list[Tensor]:
        p = x.abs().clamp(0, 1)
        e = torch.empty(4, 6)
        return [
            e.clone().uniform_(-1.0, 2.0), e.clone().normal_(1.0, 2.0), e.double().normal_(), e.half().uniform_(),
            (x * 2).bernoulli_(), (x * 2).bernoulli_(0.4), (x * 2).bernoulli_(p), (x * 2).bernoulli_(p[0]),
            e.long().bernoulli_(0.5), e.to(torch.bool).bernoulli_(0.5), e.clone().exponential_(2.0),
            e.double().exponential_(),
            e.clone().geometric_(0.3), e.clone().cauchy_(0.3, 2.0), e.clone().log_normal_(0.3, 2.0),
            e.clone().random_(), e.long().random_(9), e[:0].clone().normal_(),
        ]  # fmt: skip


class Regularises(nn.Module):
    """What draws in training only."""

    def forward(self, x: Tensor) -> list[Tensor]:
        t = self.training
        image = x.reshape(1, 4, 2, 3)
        return [
            F.dropout(x, 0.3, t), F.dropout(x.double(), 0.3, t), F.dropout(x.half(), 0.3, t), F.dropout(x, 0.0, t),
            F.dropout(x * 1, 0.3, t, True), F.dropout2d(image, 0.3, t),
            F.alpha_dropout(x, 0.3, t), F.feature_alpha_dropout(image, 0.3, t), torch.native_dropout(x, 0.3, t)[0],
            F.rrelu(x, 0.1, 0.4, t), F.rrelu(x * 1, 0.1, 0.4, t, True), F.gumbel_softmax(x),
            F.gumbel_softmax(x, hard=True),
            F.scaled_dot_product_attention(image, image, image, dropout_p=0.3 if t else 0.0),
        ]  # fmt: skip


class Orders(nn.Module):
    """Equal draws, unused ones, some inside of a view, and memory that is not in order."""

    def forward(self, x: Tensor) -> list[Tensor]:
        a, unused, b = torch.rand(4), torch.randn(4), torch.rand(4)
        y = torch.cat([x, x, x, x])
        y[:, 2:5].bernoulli_(0.4)
        y[1:9:3].normal_()
        y[:, 2].exponential_()
        y.t().uniform_(0.0, 0.5)
        z = torch.cat([x, x, x, x]).t()
        c = x.reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
        return [
            b, a, x + unused[:1], y, z.normal_(), torch.rand_like(x.t()), F.dropout(x.t(), 0.3), F.dropout(c, 0.3),
            torch.randn_like(x[:, :1].expand(4, 6)), torch.bernoulli(c.abs().clamp(0, 1)),
            torch.multinomial(x.t().abs(), 2),
        ]  # fmt: skip


class Repeats(nn.Module):
    """Draws in a branch and in loops, as often as the values say."""

    def forward(self, x: Tensor) -> list[Tensor]:
        total = x
        if bool(x.sum() > 0):
            total = total + torch.rand_like(x)
        for _ in range(int(x.abs().sum()) % 5 + 2):
            total = F.dropout(total, 0.2) + torch.randn(6)
        return [total, torch.rand(2)]


PROGRAMS = [Creates, Likes, InPlace, Regularises, Orders]
COMPILERS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "fx": lambda program, x: torch_tvm.compile(program, (x,), frontend="fx", fallback=False),
    "torchscript": lambda program, x: torch_tvm.compile(torch.jit.script(program), (x,), fallback=False),
    "lazy": lambda program, x: torch_tvm.compile(program, (x,), frontend="lazy", fallback=False),
    "torch.compile": lambda program, x: torch.compile(program, backend="torch_tvm", options={"fallback": False}),
}


def drawn(program: Callable[..., Any], x: Tensor) -> list[Any]:
    """Results of two calls after one seed and one after another, with the generator's state after each."""
    found: list[Any] = []
    for seeds in ([0, None], [7]):
        for seed in seeds:
            if seed is not None:
                torch.manual_seed(seed)
            found += [*program(x), torch.get_rng_state()]
    return found


def compare(got: list[Any], expected: list[Any]) -> None:
    for index, (one, other) in enumerate(zip(got, expected, strict=True)):
        torch.testing.assert_close(one, other, equal_nan=True, msg=lambda text, n=index: f"{n}: {text}")


def compiled(how: str, program: nn.Module, x: Tensor) -> Any:
    torch._dynamo.reset()
    result = COMPILERS[how](program, x)
    result(x)
    return result


@pytest.mark.parametrize("how", COMPILERS)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_draws_are_those_of_eager(kind: type[nn.Module], how: str) -> None:
    x = torch.linspace(-1.5, 1.5, 24).reshape(4, 6)
    program = kind()
    reference = torch.jit.script(program) if how == "torchscript" else program
    result = compiled(how, program, x)
    compare(drawn(result, x), drawn(reference, x))


def test_a_script_draws_in_branches_and_loops_as_eager_does() -> None:
    x = torch.linspace(-1.5, 1.5, 24).reshape(4, 6)
    program = torch.jit.script(Repeats())
    result = compiled("torchscript", program, x)
    for given in (x, x + 0.3, -x - 0.1):
        compare(drawn(result, given), drawn(program, given))


def test_unused_draws_of_a_graph_without_arguments_are_made() -> None:
    """AOTAutograd drops them for its own backends: torch.compile(backend="aot_eager") has other numbers than eager."""

    def program() -> tuple[Tensor]:
        torch.rand(4)
        return (torch.randn(4),)

    result = torch.compile(program, backend="torch_tvm")
    found = []
    for function in (result, result, program):
        torch.manual_seed(0)
        found.append([*function(), torch.get_rng_state()])
    compare(found[1], found[2])


def test_unused_draws_are_made_by_torch_compile_as_eager_makes_them() -> None:
    def program(x: Tensor) -> Tensor:
        p = x.abs().clamp(0, 1)
        torch.bernoulli(p), torch.randint(0, 4, (3,)), torch.multinomial(p, 2), torch.poisson(p)
        F.dropout(x, 0.5), F.rrelu(x, training=True), torch.empty(3).normal_(), torch.rand_like(x)
        return torch.randn_like(x)

    x = torch.linspace(-1.5, 1.5, 24).reshape(4, 6)
    compare(drawn(compiled("torch.compile", program, x), x), drawn(program, x))


def normals(x: Tensor) -> Tensor:
    return x.normal_() * 2


def uniforms(x: Tensor) -> Tensor:
    x[1:].uniform_()
    return x * 2


def bernoullis(x: Tensor) -> list[Tensor]:
    y = torch.bernoulli(x, 0.4)
    return [x.bernoulli_(0.3) * 2, y]


def dropped(x: Tensor) -> list[Tensor]:
    y = F.dropout(x * 2, 0.5, True)
    return [F.dropout(x, 0.5, True, True) * 2, y, torch.rand_like(x)]


LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "dense": lambda: torch.ones(4, 6),
    "transposed": lambda: torch.ones(6, 4).t(),
    "sliced": lambda: torch.ones(4, 12)[:, ::2],
    "both": lambda: torch.ones(12, 8)[::2, ::2].t(),
}


@pytest.mark.parametrize("how", ["fx", "torchscript", "torch.compile", "torch.compile of sizes that vary"])
@pytest.mark.parametrize("program", [normals, uniforms, bernoullis, dropped])
def test_a_draw_along_an_argument_knows_its_strides(program: Any, how: str) -> None:
    """Code for one order in memory draws other numbers along another: by ``compile`` it says so."""
    torch._dynamo.reset()
    if how == "fx":
        call = torch_tvm.compile(program, (LAYOUTS["dense"](),), frontend="fx", fallback=False)
    elif how == "torchscript":
        call = torch_tvm.compile(torch.jit.script(program), (LAYOUTS["dense"](),), fallback=False)
    else:
        dynamic = True if "vary" in how else None
        call = torch.compile(program, backend="torch_tvm", dynamic=dynamic, options={"fallback": False})
    for name, layout in LAYOUTS.items():
        ours, theirs = layout(), layout()
        torch.manual_seed(5)
        expected = [program(theirs), theirs, torch.get_rng_state()]
        torch.manual_seed(5)
        if name != "dense" and "torch.compile" not in how:
            with pytest.raises(InvalidInput, match="'x': the program gives other numbers for other strides"):
                call(ours)
            continue
        torch.testing.assert_close([call(ours), ours, torch.get_rng_state()], expected)


def test_code_called_in_the_place_of_a_script_knows_strides() -> None:
    script = torch.jit.script(normals)
    with torch_tvm.enable(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for layout in LAYOUTS.values():
            ours, theirs = layout(), layout()
            torch.manual_seed(5)
            script(ours)
            torch.manual_seed(5)
            normals(theirs)
            torch.testing.assert_close(ours, theirs)


def test_gradients_are_those_of_the_numbers_drawn() -> None:
    def gradient(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        x = torch.linspace(-1.5, 1.5, 24).reshape(4, 6).requires_grad_()
        torch.manual_seed(0)
        function(x).sum().backward()
        assert x.grad is not None
        return [x.grad, torch.get_rng_state()]

    def program(x: Tensor) -> Tensor:
        noise = torch.randn_like(x) - 2 * torch.randn_like(x)
        kept = torch.bernoulli(x.detach(), 0.5)
        return F.dropout(x * x, 0.3) * noise + F.rrelu(x, training=True) * kept

    torch._dynamo.reset()
    compare(gradient(torch.compile(program, backend="torch_tvm")), gradient(program))


@pytest.mark.parametrize("kind", [Regularises, Orders])
def test_draws_are_those_of_eager_where_gradients_are_needed(kind: type[nn.Module]) -> None:
    """AOTAutograd makes the graph functional, with decompositions of its own."""
    x = torch.linspace(-1.5, 1.5, 24).reshape(4, 6).requires_grad_()
    program = kind()
    result = compiled("torch.compile", program, x)
    compare(drawn(result, x), drawn(program, x))


def test_a_module_outside_training_draws_nothing() -> None:
    class Off(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.rrelu(F.dropout(x, 0.5, self.training), 0.1, 0.4, self.training)

    x = torch.linspace(-1.5, 1.5, 24).reshape(4, 6)
    program = Off().eval()
    module = torch_tvm.compile(program, (x,), fallback=False)
    state = torch.get_rng_state()
    torch.testing.assert_close(module(x), program(x))
    assert torch.equal(torch.get_rng_state(), state)


def seeded(x: Tensor) -> Tensor:
    torch.manual_seed(3)
    return x + torch.rand(6)


def forked(x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        return x + torch.rand(6)


@pytest.mark.parametrize("program", [seeded, forked])
def test_a_program_that_seeds_is_refused(program: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(4, 6)
    with pytest.raises(ImportFailed, match=r"test_random.py:\d+.* the program seeds the random generator"):
        torch_tvm.import_fx(program, (x,))
    with pytest.raises(ImportFailed, match=r"test_random.py:\d+"):
        torch_tvm.import_lazy(program, (x,))
    assert torch.manual_seed.__module__ == "torch.random"


def test_a_script_that_seeds_is_refused() -> None:
    @torch.jit.script
    def script(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return x + torch.rand(6)

    with pytest.raises(ImportFailed, match=r"test_random.py:\d+: torch.aten.manual_seed"):
        torch_tvm.import_torchscript(script, (torch.ones(4, 6),))


def test_torch_compile_leaves_seeding_to_pytorch() -> None:
    torch._dynamo.reset()
    result = torch.compile(seeded, backend="torch_tvm")
    x = torch.ones(4, 6)
    compare([result(x), torch.get_rng_state()], [seeded(x), torch.get_rng_state()])


def test_every_random_op_of_the_dialect_is_kept_whole() -> None:
    """torch-mlir takes ``randn`` apart into Box-Muller over ``rand``, which draws other numbers."""
    context = new_context()
    missing = []
    for schema in torch._C._jit_get_all_schemas():
        name = schema.name.replace("::", ".") + (f".{schema.overload_name}" if schema.overload_name else "")
        packet = getattr(torch.ops.aten, schema.name.removeprefix("aten::"), None)
        overload = getattr(packet, schema.overload_name or "default", None)
        if not isinstance(overload, torch._ops.OpOverload) or schema.is_mutable:
            continue
        is_random = torch.Tag.nondeterministic_seeded in overload.tags and "attention" not in name
        if is_random and context.is_registered_operation(f"torch.{name}") and name not in DRAWING:
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_what_draws_nothing_takes_arguments_of_any_strides(frontend: str) -> None:
    """Attention and dropout outside training have the tag of random ops."""

    class Program(torch.nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            y = torch.nn.functional.scaled_dot_product_attention(q, q, q)
            return torch.nn.functional.dropout(y, 0.5, self.training) + torch.nn.functional.dropout(q, 0.0, True)

    q = torch.randn(2, 8, 4, 16)
    program = Program().eval()
    compiled = torch_tvm.compile(program, (q,), frontend=frontend)
    other = torch.randn(2, 4, 8, 16).transpose(1, 2)
    torch.testing.assert_close(compiled(other), program(other), rtol=1e-4, atol=1e-5)
