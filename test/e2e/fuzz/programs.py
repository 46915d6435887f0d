"""Random PyTorch programs: views, updates of views, mixed dtypes, strided and shared arguments, state, control flow.

A program is a list of lines over named values. It is made while it runs in eager PyTorch: a line that raises there is
not taken. The text of a program is a module that every importer can read from a file.
"""

# ruff: noqa: E501
from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
OTHERS = (
    "float32", "float32", "float64", "float64", "int64", "int64", "int32", "int32", "bool", "bool", "uint8", "uint8",
    "int16", "int8", "float16", "bfloat16", "complex64",
)  # fmt: skip
LAYOUTS = ("dense", "transposed", "channels_last", "expanded", "stepped", "offset", "flipped_storage")
_NAME = re.compile(r"\b(?:a\d+|v\d+|self\.b\d+)\b")
_MOST_ELEMENTS = 20_000


@dataclass(frozen=True)
class Input:
    """An argument: its dtype, its sizes at the first call, and how it lies in memory."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str = "dense"

    def make(self, rng: torch.Generator, shape: Sequence[int] | None = None) -> torch.Tensor:
        return laid_out(values(self.dtype, tuple(self.shape if shape is None else shape), rng), self.layout)


@dataclass(frozen=True)
class Line:
    """One statement; ``makes`` is the value that it binds, if any."""

    text: str
    makes: str = ""

    @property
    def uses(self) -> set[str]:
        return set(_NAME.findall(self.text)) - {self.makes}


@dataclass(frozen=True)
class Program:
    """A module's text and its arguments.

    ``same`` says that the first two arguments are one tensor, ``dynamic`` that sizes of ``size`` vary, ``relaid`` that
    the strides of a later call are others.
    """

    inputs: tuple[Input, ...]
    state: tuple[Input, ...]
    lines: tuple[Line, ...]
    results: tuple[str, ...]
    seed: int = 0
    same: bool = False
    dynamic: bool = False
    size: int = 0
    relaid: bool = False

    def source(self, name: str = "Program") -> str:
        arguments = "".join(f", {each.name}: torch.Tensor" for each in self.inputs)
        text = f"class {name}(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        for each in self.state:
            text += (
                f"        self.register_buffer({each.name!r}, torch.zeros({list(each.shape)}, dtype={each.dtype}))\n"
            )
        text += f"\n    def forward(self{arguments}):\n"
        for line in self.lines:
            text += "".join(f"        {part}\n" for part in line.text.split("\n"))
        return text + f"        return ({', '.join(self.results)},)\n"

    def without(self, line: Line) -> Program:
        """The program without a line and all that needs what it makes."""
        gone, kept = {line.makes} - {""}, []
        for each in self.lines:
            if each is line or each.uses & gone:
                gone |= {each.makes} - {""}
            else:
                kept.append(each)
        known = {each.name for each in self.inputs} | {each.makes for each in kept}
        results = tuple(r for r in self.results if r in known or r.startswith("self."))
        return replace(self, lines=tuple(kept), results=results)


def values(dtype: str, shape: tuple[int, ...], rng: torch.Generator) -> torch.Tensor:
    kind = getattr(torch, dtype.removeprefix("torch."))
    if kind == torch.bool:
        return torch.randint(0, 2, shape, generator=rng).bool()
    if kind in INTEGERS:
        low = 0 if kind == torch.uint8 else -4
        return torch.randint(low, 6, shape, generator=rng).to(kind)
    if kind.is_complex:
        return torch.view_as_complex(torch.rand((*shape, 2), generator=rng) * 4 - 2).to(kind)
    return (torch.rand(shape, generator=rng, dtype=torch.float64) * 4 - 2).to(kind)


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """``x`` with other strides."""
    if layout == "transposed" and x.dim() >= 2:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "channels_last" and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "expanded" and x.dim() >= 1 and x.shape[0] > 0:
        return x[:1].expand(x.shape)
    if layout == "stepped" and x.dim() >= 1:
        wide = torch.zeros((*x.shape[:-1], 2 * x.shape[-1]), dtype=x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "offset":
        room = torch.zeros(x.numel() + 3, dtype=x.dtype)
        room[3:] = x.reshape(-1)
        return room[3:].view(x.shape)
    if layout == "flipped_storage" and x.dim() >= 3:
        return x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
    return x


# -- making programs ---------------------------------------------------------------------------------------


class Maker:
    """Adds lines to a program as long as eager PyTorch runs them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        self.dynamic = self.rng.random() < 0.2
        self.size = self.rng.choice((3, 5, 6, 7))
        self.lines: list[Line] = []
        self.values: dict[str, torch.Tensor] = {}
        self.module = torch.nn.Module()
        self.count = 0

    def program(self) -> Program:
        rng = self.rng
        main = rng.choices(("float32", "float64", "bfloat16", "float16", "int64"), (12, 2, 2, 1, 2))[0]
        inputs = [self._input(f"a{i}", main) for i in range(rng.randint(1, 3))]
        same = len(inputs) > 1 and rng.random() < 0.08
        if same:
            inputs[1] = replace(inputs[0], name="a1")
        state = [self._state(f"b{i}", main) for i in range(rng.choice((0, 0, 0, 1, 2)))]
        for each in inputs:
            self.values[each.name] = each.make(self.generator)
        if same:
            self.values["a1"] = self.values["a0"]
        for each in state:
            self.module.register_buffer(each.name, torch.zeros(each.shape, dtype=getattr(torch, each.dtype[6:])))
        wanted = rng.randint(2, 9)
        for _ in range(wanted * 12):
            if len(self.lines) >= wanted:
                break
            self._propose()
        made = [line.makes for line in self.lines if line.makes]
        results = made[-3:] if made else [inputs[0].name]
        if rng.random() < 0.2 and made:
            results.append(rng.choice(made))
        if rng.random() < 0.1:
            results.append(rng.choice(inputs).name)
        return Program(
            tuple(inputs), tuple(state), tuple(self.lines), tuple(dict.fromkeys(results)), self.seed, same,
            self.dynamic, self.size, relaid=rng.random() < 0.25,
        )  # fmt: skip

    def _input(self, name: str, main: str) -> Input:
        rng = self.rng
        dtype = main if rng.random() < 0.75 else rng.choice(OTHERS)
        layout = rng.choice(LAYOUTS) if rng.random() < 0.5 else "dense"
        return Input(name, f"torch.{dtype}", self._shape(), layout)

    def _state(self, name: str, main: str) -> Input:
        dtype = main if self.rng.random() < 0.8 else "int64"
        return Input(name, f"torch.{dtype}", self._shape() if not self.dynamic else (3,))

    def _shape(self) -> tuple[int, ...]:
        rng = self.rng
        rank = rng.choices((0, 1, 2, 3, 4), (1, 4, 8, 6, 4))[0]
        sizes = [rng.choices((1, 2, 3, 4, 8, 17, 0, self.size), (3, 3, 3, 4, 3, 1, 0.4, 6))[0] for _ in range(rank)]
        return tuple(sizes)

    def _propose(self) -> None:
        kind, template = self.rng.choices(TEMPLATES, [weight for _, weight, _ in TEMPLATES])[0][::2]
        try:
            text = template(self)
        except IndexError:  # no value of the kind that it wants
            return
        if text is None:
            return
        makes = ""
        if kind == "value":
            makes, text = f"v{self.count}", f"v{self.count} = {text}"
        elif kind == "block":
            makes = f"v{self.count}"
            text = text.replace("OUT", makes)
        self._take(Line(text, makes))

    def _take(self, line: Line) -> None:
        before = {name: value.clone() for name, value in self.values.items()} if not line.makes else {}
        names: dict[str, Any] = {"torch": torch, "F": torch.nn.functional, "self": self.module, **self.values}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                exec(line.text, names)
        except Exception:
            for name, value in before.items():
                if value.shape == self.values[name].shape and not value.equal(self.values[name]):
                    try:
                        self.values[name].copy_(value)
                    except RuntimeError:
                        pass
            return
        if line.makes:
            made = names[line.makes]
            if not isinstance(made, torch.Tensor) or made.numel() > _MOST_ELEMENTS:
                return
            if made.is_complex() and self.rng.random() < 0.5:
                return
            if (made.is_floating_point() or made.is_complex()) and made.numel() and not (made.abs() < 1e4).all():
                return
            self.values[line.makes] = made
            self.count += 1
        elif any(v.is_floating_point() and v.numel() and not (v.abs() < 1e4).all() for v in self.values.values()):
            for name, value in before.items():
                if not value.equal(self.values[name]):
                    self.values[name].copy_(value)
            return
        self.lines.append(line)

    # -- choices for templates -------------------------------------------------------------------------

    def any(self, test: Callable[[torch.Tensor], bool] = lambda t: True) -> str:
        """The name of a value; the latest are likelier."""
        fit = [name for name, value in self.values.items() if test(value)]
        if not fit:
            raise IndexError
        return self.rng.choice(fit[-4:]) if self.rng.random() < 0.7 else self.rng.choice(fit)

    def floating(self, *ranks: int) -> str:
        return self.any(lambda t: t.is_floating_point() and (not ranks or t.dim() in ranks))

    def ranked(self, *ranks: int) -> str:
        return self.any(lambda t: t.dim() in ranks)

    def at_least(self, rank: int) -> str:
        return self.any(lambda t: t.dim() >= rank)

    def like(self, name: str) -> str:
        """A value that broadcasts with another."""
        shape = self.values[name].shape
        return self.any(lambda t: _broadcasts(t.shape, shape))

    def dim(self, name: str) -> int:
        rank = self.values[name].dim()
        return self.rng.randrange(-rank, rank) if rank else self.rng.choice((0, -1))

    def number(self) -> str:
        return self.rng.choice(("2", "-1", "3", "0.5", "1.5", "-2.25", "0", "1"))

    def index(self, name: str, dim: int) -> int:
        size = self.values[name].shape[dim]
        return self.rng.randrange(-size, size)

    def slice(self, name: str, dim: int) -> str:
        size = self.values[name].shape[dim]
        start = self.rng.choice(("", str(self.rng.randint(-size - 1, size + 1))))
        end = self.rng.choice(("", str(self.rng.randint(-size - 1, size + 1))))
        return f"{start}:{end}" + self.rng.choice(("", "", ":2", ":3"))

    def pick(self, *choices: Any) -> Any:
        return self.rng.choice(choices)


def _broadcasts(a: Sequence[int], b: Sequence[int]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(reversed(a), reversed(b), strict=False))


Template = Callable[[Maker], "str | None"]
TEMPLATES: list[tuple[str, float, Template]] = []


def value(weight: float = 1.0) -> Callable[[Template], Template]:
    """Register a template of an expression."""
    return _register("value", weight)


def update(weight: float = 1.0) -> Callable[[Template], Template]:
    """Register a template of a statement that writes."""
    return _register("update", weight)


def block(weight: float = 1.0) -> Callable[[Template], Template]:
    """Register a template of a statement that binds ``OUT``."""
    return _register("block", weight)


def _register(kind: str, weight: float) -> Callable[[Template], Template]:
    def add(template: Template) -> Template:
        TEMPLATES.append((kind, weight, template))
        return template

    return add


# -- arithmetic --------------------------------------------------------------------------------------------


@value(10)
def binary(m: Maker) -> str:
    a = m.any()
    b = m.like(a) if m.rng.random() < 0.75 else m.number()
    if m.rng.random() < 0.5:
        a, b = b, a
    return f"{a} {m.pick('+', '-', '*', '+', '-', '*', '/', '//', '%', '<', '>=', '==', '!=', '&', '|', '^')} {b}"


@value(4)
def binary_function(m: Maker) -> str:
    a = m.any()
    name = m.pick(
        "maximum", "minimum", "atan2", "fmod", "remainder", "true_divide", "floor_divide", "copysign", "fmax", "fmin",
        "logical_and", "logical_or", "logical_xor", "eq", "lt", "hypot", "logaddexp", "dist", "sub", "rsub", "heaviside",
    )  # fmt: skip
    return f"torch.{name}({a}, {m.like(a)})"


@value(3)
def alpha(m: Maker) -> str:
    a = m.any()
    return f"torch.{m.pick('add', 'sub')}({a}, {m.like(a)}, alpha={m.number()})"


@value(6)
def unary(m: Maker) -> str:
    name = m.pick(
        "abs", "neg", "exp", "sin", "cos", "tanh", "sigmoid", "relu", "sqrt", "square", "floor", "ceil", "round", "trunc",
        "sign", "erf", "log1p", "expm1", "atan", "reciprocal", "rsqrt", "isnan", "isfinite", "logical_not", "bitwise_not",
        "asinh", "positive", "sgn", "signbit", "frac", "rad2deg", "exp2",
    )  # fmt: skip
    return f"torch.{name}({m.any()})"


@value(4)
def activation(m: Maker) -> str:
    name = m.pick("gelu", "silu", "leaky_relu", "elu", "softplus", "hardtanh", "relu6", "hardswish", "mish", "selu",
                  "logsigmoid", "hardsigmoid", "softsign", "tanhshrink", "celu")  # fmt: skip
    return f"F.{name}({m.floating()})"


@value(3)
def clamp(m: Maker) -> str:
    a = m.any()
    return m.pick(
        f"{a}.clamp({m.number()}, 2)", f"{a}.clamp(min={m.number()})", f"torch.clamp({a}, max={m.number()})",
        f"{a}.clip(-1, 1)", f"torch.clamp({a}, {m.like(a)}, {m.like(a)})",
    )  # fmt: skip


@value(4)
def where(m: Maker) -> str:
    a = m.any()
    b = m.like(a)
    return m.pick(
        f"torch.where({a} > {m.number()}, {a}, {b})", f"torch.where({a} > {b}, {b}, {m.number()})",
        f"{a}.masked_fill({b} > 0, {m.number()})", f"torch.where({a} == {a}, {m.number()}, {b})",
    )  # fmt: skip


@value(3)
def ternary(m: Maker) -> str:
    a = m.any()
    b, c = m.like(a), m.like(a)
    return m.pick(
        f"torch.addcmul({a}, {b}, {c}, value={m.number()})", f"torch.addcdiv({a}, {b}, {c})",
        f"torch.lerp({a}, {b}, 0.25)", f"torch.lerp({a}, {b}, {c})",
    )  # fmt: skip


@value(5)
def cast(m: Maker) -> str:
    a = m.any()
    return m.pick(
        f"{a}.float()", f"{a}.double()", f"{a}.to(torch.bfloat16)", f"{a}.round().long()", f"{a}.round().int()",
        f"{a} > 0", f"{a}.half()", f"{a}.to({m.any()}.dtype)", f"{a}.type_as({m.any()})", f"{a}.bool()",
    )  # fmt: skip


# -- reductions --------------------------------------------------------------------------------------------


@value(6)
def reduction(m: Maker) -> str:
    a = m.any()
    d, keep = m.dim(a), m.pick("", ", keepdim=True")
    return m.pick(
        f"{a}.sum()", f"{a}.mean()", f"{a}.sum({d}{keep})", f"{a}.mean({d}{keep})", f"{a}.amax({d}{keep})",
        f"{a}.amin({d}{keep})", f"{a}.prod({d}{keep})", f"{a}.var({d}{keep})", f"{a}.std({d})", f"{a}.argmax({d}{keep})",
        f"{a}.argmin({d})", f"{a}.any({d}{keep})", f"{a}.all({d})", f"{a}.logsumexp({d}{keep})", f"{a}.norm()",
        f"{a}.max({d})[0]", f"{a}.min({d})[1]", f"torch.linalg.vector_norm({a}, 2, {d})", f"{a}.max()", f"{a}.min()",
        f"{a}.sum(({d},), dtype=torch.float64)", f"{a}.count_nonzero({d})", f"{a}.nansum({d})", f"{a}.var(unbiased=False)",
        f"torch.std({a}, {d}, correction=0)", f"{a}.aminmax()[1]", f"{a}.median({d})[0]",
    )  # fmt: skip


@value(4)
def along(m: Maker) -> str:
    a = m.at_least(1)
    d = m.dim(a)
    return m.pick(
        f"{a}.cumsum({d})", f"{a}.cumprod({d})", f"torch.cummax({a}, {d})[0]", f"{a}.flip({d})", f"{a}.roll(1, {d})",
        f"{a}.softmax({d})", f"{a}.log_softmax({d})", f"{a}.sort({d})[0]", f"{a}.diff(dim={d})", f"F.normalize({a}, dim={d})",
        f"{a}.topk(1, {d})[0]", f"torch.cummin({a}, {d})[1]", f"{a}.sort({d}, descending=True, stable=True)[1]",
        f"{a}.logcumsumexp({d})", f"{a}.kthvalue(1, {d})[0]", f"torch.trapezoid({a}, dim={d})", f"{a}.unfold({d}, 2, 1)",
    )  # fmt: skip


# -- views -------------------------------------------------------------------------------------------------


@value(14)
def view(m: Maker) -> str:
    a = m.any()
    if m.values[a].dim() == 0:
        return m.pick(f"{a}.view(1)", f"{a}.unsqueeze(0)", f"{a}.expand(3)", f"{a}.reshape(-1)", f"{a}.detach()")
    d, e = m.dim(a), m.dim(a)
    size = m.values[a].shape[d]
    return m.pick(
        f"{a}.transpose({d}, {e})", f"{a}.unsqueeze({d})", f"{a}.squeeze({d})", f"{a}.flatten()", f"{a}.view(-1)",
        f"{a}.reshape(-1)", f"{a}.select({d}, {m.index(a, d)})" if size else f"{a}.squeeze()",
        f"{a}[{m.slice(a, 0)}]", f"{a}[..., {m.slice(a, -1)}]", f"{a}.narrow({d}, 0, {max(0, size - 1)})",
        f"{a}.movedim({d}, {e})", f"{a}.expand(2, {', '.join('-1' for _ in m.values[a].shape)})", f"{a}.t()", f"{a}.mT",
        f"{a}.unsqueeze(0).expand_as({m.any()})", f"{a}.reshape({m.values[a].shape[0]}, -1)", f"{a}.chunk(2, {d})[0]",
        f"{a}.split(2, {d})[-1]", f"{a}.diagonal()", f"{a}.swapaxes({d}, {e})", f"torch.atleast_2d({a})", f"{a}.contiguous()",
        f"{a}.flatten(0, 1)", f"{a}.view({a}.shape)", f"{a}[None]", f"{a}[:, None]", f"{a}.ravel()", f"{a}.view_as({m.any()})",
        f"{a}.unbind({d})[0]", f"{a}.tensor_split(2, {d})[1]", f"{a}.squeeze()", f"{a}.detach()",
        f"torch.broadcast_to({a}, (2, {', '.join(map(str, m.values[a].shape))}))", f"{a}.as_strided((2,), (1,))",
    )  # fmt: skip


@value(5)
def rarer_view(m: Maker) -> str:
    a = m.at_least(1)
    d, e = m.dim(a), m.dim(a)
    shape = m.values[a].shape
    order = m.rng.sample(range(len(shape)), len(shape))
    return m.pick(
        f"{a}.permute({', '.join(map(str, order))})", f"{a}.unflatten({d}, (1, -1))", f"{a}.unflatten({d}, (-1, 2))",
        f"{a}.as_strided((2, 2), (1, 1), 1)", f"{a}.unsafe_chunk(2, {d})[0]", f"{a}.unsafe_split(1, {d})[-1]", f"{a}.mH",
        f"{a}.hsplit(2)[1]", f"{a}.vsplit(2)[0]", f"{a}.dsplit(1)[0]", f"{a}.diagonal({m.pick(0, 1, -1)}, {d}, {e})",
        f"{a}.unfold({d}, 1, 2)", f"{a}.split([1, {max(0, shape[d] - 1)}], {d})[1]", f"{a}.narrow({d}, -1, 1)", f"{a}.expand_as({a})",
        f"{a}.view({a}.dtype)", f"{a}.data", f"{a}.chunk(3, {d})[-1]", f"{a}.T", f"{a}.real", f"torch.view_as_real({a})",
        f"{a}[..., None, :]", f"{a}[:, :1]", f"{a}[-1:, ...]", f"{a}.select({d}, -1).unsqueeze({d})", f"{a}.to({a}.dtype)",
        f"{a}.view({', '.join(map(str, shape[::-1]))})", f"{a}.reshape({', '.join(map(str, sorted(shape)))})", f"{a}.cpu()",
        f"{a}.squeeze(({d}, {e}))", f"{a}.moveaxis({d}, 0)", f"{a}.view(1, *{a}.shape)", f"{a}.unbind({d})[-1].flatten()",
    )  # fmt: skip


@value(1)
def complex_numbers(m: Maker) -> str:
    a = m.any()
    return m.pick(
        f"torch.complex({a}, {m.like(a)})", f"torch.fft.fft({a})", f"torch.fft.rfft({a}).abs()", f"{a}.imag", f"{a}.conj()",
        f"torch.view_as_complex({a})", f"{a}.angle()", f"torch.polar({a}, {a})", f"{a} * 1j", f"torch.real({a})",
    )  # fmt: skip


@value(2)
def copy(m: Maker) -> str:
    a = m.any()
    return m.pick(f"{a}.clone()", f"{a}.contiguous()", f"torch.zeros_like({a})", f"torch.ones_like({a})", f"{a}.new_zeros(3)",
                  f"torch.full_like({a}, {m.number()})", f"{a}.new_full((2, 3), {m.number()})")  # fmt: skip


@value(2)
def created(m: Maker) -> str:
    a = m.at_least(1)
    return m.pick(
        f"torch.arange({a}.shape[0])", f"torch.zeros({a}.shape[0], 3)", "torch.ones(2, 3)", f"torch.arange({a}.size(-1)) * 0.5",
        "torch.eye(4)", "torch.linspace(0, 1, 5)", f"torch.full(({a}.shape[-1],), 2.5)", "torch.tensor([1.0, -2.0, 3.0])",
        f"torch.empty_like({a}).fill_(2)", "torch.tril(torch.ones(4, 4))",
    )  # fmt: skip


@value(3)
def triangle(m: Maker) -> str:
    return f"{m.at_least(2)}.{m.pick('tril', 'triu')}({m.pick('', '1', '-1')})"


# -- updates -----------------------------------------------------------------------------------------------


@update(9)
def in_place(m: Maker) -> str:
    a = m.any()
    b = m.like(a) if m.rng.random() < 0.6 else m.number()
    return m.pick(
        f"{a}.add_({b})", f"{a}.mul_({b})", f"{a}.sub_({b})", f"{a}.copy_({m.like(a)})", f"{a}.fill_({m.number()})", f"{a}.zero_()",
        f"{a}.relu_()", f"{a}.clamp_(-1, 1)", f"{a}.neg_()", f"{a}.masked_fill_({m.like(a)} > 0, {m.number()})", f"{a} += {b}",
        f"{a} *= {b}", f"{a}.tanh_()", f"{a}.abs_()", f"{a}.div_({m.pick('2', '4')})", f"F.relu({a}, inplace=True)",
        f"{a}.sigmoid_()", f"{a}.exp_()", f"{a}.floor_()", f"{a}.lerp_({m.like(a)}, 0.5)", f"{a}.addcmul_({m.like(a)}, {m.like(a)})",
    )  # fmt: skip


@update(9)
def in_place_on_view(m: Maker) -> str:
    a = m.at_least(1)
    d = m.dim(a)
    size = m.values[a].shape[d]
    window = m.pick(
        f"{a}[{m.slice(a, 0)}]", f"{a}[..., {m.slice(a, -1)}]", f"{a}.select({d}, {m.index(a, d) if size else 0})", f"{a}.view(-1)",
        f"{a}.transpose({d}, {m.dim(a)})", f"{a}.unsqueeze(0)", f"{a}[{m.index(a, 0) if m.values[a].shape[0] else 0}]",
        f"{a}.diagonal()", f"{a}.flatten()", f"{a}.t()", f"{a}.chunk(2, {d})[0]", f"{a}.narrow({d}, 0, 1)",
    )  # fmt: skip
    source = m.any() if m.rng.random() < 0.4 else m.number()
    if m.rng.random() < 0.35 and window.endswith("]"):
        return f"{window} = {source}"
    return m.pick(f"{window}.add_({source})", f"{window}.mul_({m.number()})", f"{window}.fill_({m.number()})",
                  f"{window}.copy_({m.any()})", f"{window}.zero_()", f"{window}.sub_({source})")  # fmt: skip


@update(3)
def rarer_update(m: Maker) -> str:
    a = m.at_least(1)
    b, d = m.like(a), m.dim(a)
    order = f"torch.argsort({a}, dim={d}, stable=True)"
    return m.pick(
        f"{a}.index_add_(0, torch.tensor([0, 0]), {m.any()}[:2])", f"{a}.index_fill_({d}, torch.tensor([0]), {m.number()})",
        f"{a}.index_copy_(0, torch.tensor([0]), {a}[-1:])", f"{a}.scatter_({d}, {order}, {m.number()})", f"{a}.scatter_add_({d}, {order}, {a})",
        f"{a}.index_put_((torch.tensor([0, -1]),), {b}[0])", f"{a}[[0, -1]] = {m.number()}", f"{a}[[-1]] += {b}[:1]",
        f"{a}.masked_scatter_({a} > 0, {b}.flatten().clone())", f"torch.add({a}, {b}, out={m.any()})", f"torch.mul({a}, {m.number()}, out={m.any()})",
        f"torch.relu_({a})", f"{a}.pow_(2)", f"{a}.tril_()", f"{a}.cumsum_({d})", f"{a}.fill_diagonal_(1)", f"{a}.clamp_min_({m.number()})",
        f"{a}.logical_not_()", f"{a}.bitwise_and_({b})", f"{a}.eq_({b})", f"{a}.remainder_(2)", f"{a}.swapaxes(0, {d}).add_({b})",
        f"{a}.unsafe_chunk(2, {d})[0].add_(1)", f"{a}.split(1, {d})[-1].mul_(3)", f"{a}.unbind({d})[0].copy_({b})", f"{a}.data.add_(1)",
        f"{a}.expand(2, {', '.join('-1' for _ in m.values[a].shape)}).select(0, 1).add_(1)", f"{a}.detach().mul_(2)", f"{a}.addcdiv_({b}, {b}, value=0.5)",
        f"for each in {a}.unbind({d}):\n    each.add_(1)", f"for each in {a}.chunk(2, {d}):\n    each.mul_(2)", f"{a}.to({a}.dtype).add_(1)",
        f"{a}.contiguous().add_(1)", f"{a}.reshape(-1).mul_(2)", f"{a}.squeeze().neg_()", f"{a}.real.add_(1)", f"{a}.float().add_(1)",
    )  # fmt: skip


@update(2)
def masked(m: Maker) -> str:
    a = m.at_least(1)
    return m.pick(f"{a}[{a} > 0] = {m.number()}", f"{a}[{m.like(a)} > 0.5] = 0", f"{a}.masked_fill_({a} < 0, 1)",
                  f"{a}[..., {a}.shape[-1] // 2:] = {m.number()}")  # fmt: skip


@update(2)
def shape_in_place(m: Maker) -> str:
    a = m.at_least(2)
    return m.pick(f"{a}.t_()", f"{a}.unsqueeze_(0)", f"{a}.squeeze_()", f"{a}.transpose_(0, -1)")


@update(5)
def write_state(m: Maker) -> str | None:
    names = [name for name, _ in m.module.named_buffers()]
    if not names:
        return None
    b = f"self.{m.rng.choice(names)}"
    return m.pick(
        f"{b}.add_({m.any()})", f"{b}.add_(1)", f"{b} += {m.any()}.sum()", f"{b}.copy_({m.any()})", f"{b}.mul_(0.5)",
        f"{b}[0] = {m.number()}", f"{b}.view(-1)[:1].add_({m.any()}.mean())", f"{b} = {b} + 1", f"{b} = {b} * 0.5 + {m.any()}.sum()",
    )  # fmt: skip


@value(4)
def read_state(m: Maker) -> str | None:
    names = [name for name, _ in m.module.named_buffers()]
    if not names:
        return None
    b = f"self.{m.rng.choice(names)}"
    return m.pick(f"{b} + {m.any()}", f"{b} * 2", f"{b}.view(-1)", f"{b}.sum()", f"{b}.clone()", f"{b}[:1]")


# -- indexing ----------------------------------------------------------------------------------------------


@value(6)
def indexed(m: Maker) -> str:
    a = m.any(lambda t: t.dim() >= 1 and t.shape[0] > 0)
    i = (
        m.any(lambda t: t.dtype in (torch.int64, torch.int32, torch.uint8, torch.int8, torch.int16) and t.dim() <= 2)
        if (m.rng.random() < 0.5)
        else "torch.tensor([0, -1, 0])"
    )
    size = f"{a}.shape[0]"
    index = f"({i}.long() % {size})" if not i.startswith("torch") else i
    d = m.dim(a)
    return m.pick(
        f"{a}[{index}]", f"{a}.index_select(0, {index}.abs().reshape(-1) % {size})", f"{a}[{index}, ...]",
        f"F.embedding({index}.abs() % {size}, {a})", f"{a}.take({index})", f"{a}[[0, -1]]", f"torch.take_along_dim({a}, torch.argsort({a}, dim={d}, stable=True), {d})",
        f"{a}.gather({d}, torch.argsort({a}, dim={d}, stable=True))", f"{a}[..., [0]]", f"{a}[{index}, {index}]", f"{a}[:, {index}]",
    )  # fmt: skip


@value(3)
def scattered(m: Maker) -> str:
    a = m.any(lambda t: t.dim() >= 1 and t.shape[0] > 0)
    d = m.dim(a)
    i = f"torch.argsort({a}, dim={d}, stable=True)"
    return m.pick(
        f"{a}.scatter({d}, {i}, {m.any()})", f"{a}.scatter({d}, {i}, {m.number()})", f"{a}.scatter_add({d}, {i}, {a})",
        f"{a}.index_add(0, torch.tensor([0, 0]), {a}[:2])", f"{a}.index_fill(0, torch.tensor([0]), {m.number()})",
        f"{a}.index_copy(0, torch.tensor([0]), {a}[-1:])", f"{a}.index_put((torch.tensor([0, -1]),), {a}[0])",
        f"{a}.masked_scatter({a} > 0, {a}.flatten())", f"{a}.scatter_reduce({d}, {i}, {a}, 'amax')",
        f"torch.slice_scatter({a}, {a}[:1], 0, 0, 1)", f"{a}.select_scatter({a}[0], 0, 0)",
        f"{a}.index_put((torch.tensor([0, 0]),), {a}[0], accumulate=True)",
    )  # fmt: skip


@value(5)
def joined(m: Maker) -> str:
    a = m.any()
    shape = m.values[a].shape
    b = m.any(lambda t: t.dim() == len(shape))
    same = m.any(lambda t: t.shape == shape)
    d = m.dim(a)
    return m.pick(
        f"torch.cat([{a}, {b}], {d})", f"torch.stack([{a}, {same}], {d})", f"torch.cat([{a}, {a}, {b}])", f"torch.hstack([{a}, {b}])",
        f"{a}.repeat(2, {', '.join('1' for _ in shape)})", f"{a}.repeat_interleave(2, {d})", f"torch.block_diag({a}, {b})",
        f"torch.vstack([{a}, {b}])", f"torch.cat([{a}.flip({d}), {b}], {d})", f"torch.tile({a}, (2,))",
        f"F.pad({a}, (1, 2))", f"F.pad({a}, (1, -1), value={m.number()})", f"torch.outer({a}.flatten(), {b}.flatten())",
        f"F.pad({a}, (0, 1, 1, 0), mode={m.pick('constant', 'reflect', 'replicate', 'circular')!r})", f"torch.kron({a}, {b})",
    )  # fmt: skip


# -- products and layers -----------------------------------------------------------------------------------


@value(6)
def product(m: Maker) -> str:
    a = m.any(lambda t: t.dim() >= 1)
    inner = m.values[a].shape[-1]
    b = m.any(lambda t: t.dim() >= 1 and t.shape[-2 if t.dim() > 1 else 0] == inner)
    return m.pick(f"{a} @ {b}", f"torch.matmul({a}, {b})", f"{a} @ {a}.transpose(-1, -2)", f"{a}.mT @ {a}",
                  f"torch.einsum('...i,...i->...', {a}, {a})", f"torch.bmm({a}, {b})", f"torch.mm({a}, {b})",
                  f"torch.addmm({m.any()}, {a}, {b}, beta=0.5)", f"F.linear({a}, {m.any()})")  # fmt: skip


@value(4)
def layer(m: Maker) -> str:
    a = m.floating()
    shape = m.values[a].shape
    dtype = str(m.values[a].dtype)
    last = shape[-1] if shape else 1
    channels = shape[1] if len(shape) > 1 else 1
    ones = f"torch.ones({channels}, dtype={dtype})"
    return m.pick(
        f"F.layer_norm({a}, ({last},))", f"F.rms_norm({a}, ({last},))", f"F.group_norm({a}, 1)", f"F.instance_norm({a})",
        f"F.batch_norm({a}, torch.zeros({channels}, dtype={dtype}), {ones}, eps=0.1)", f"F.max_pool2d({a}, 2)", f"F.avg_pool2d({a}, 2, 1)",
        f"F.adaptive_avg_pool2d({a}, 2)", f"F.max_pool1d({a}, 2)", f"F.conv2d({a}, torch.ones(2, {channels}, 2, 2, dtype={dtype}))",
        f"F.conv1d({a}, torch.ones(3, {channels}, 2, dtype={dtype}), padding=1)", f"F.interpolate({a}, scale_factor=2.0)",
        f"F.pixel_shuffle({a}, 2)", f"F.scaled_dot_product_attention({a}, {a}, {a})", f"F.glu({a}, {m.dim(a)})", f"F.dropout({a}, 0.5, False)",
        f"F.conv_transpose2d({a}, torch.ones({channels}, 2, 2, 2, dtype={dtype}), stride=2)", f"F.unfold({a}, 2)", f"F.local_response_norm({a}, 2)",
        f"F.conv2d({a}, torch.ones({channels}, 1, 3, 3, dtype={dtype}), groups={channels}, padding=1)", f"F.channel_shuffle({a}, 2)",
        f"F.interpolate({a}, size=(5, 4), mode='bilinear')", f"F.adaptive_max_pool2d({a}, (1, 2))", f"F.avg_pool1d({a}, 2, 2, 1)",
    )  # fmt: skip


@value(2)
def loss(m: Maker) -> str:
    a = m.floating()
    b = m.any(lambda t: t.shape == m.values[a].shape and t.dtype == m.values[a].dtype)
    return m.pick(f"F.mse_loss({a}, {b})", f"F.l1_loss({a}, {b}, reduction='none')", f"F.smooth_l1_loss({a}, {b})",
                  f"F.huber_loss({a}, {b})", f"F.binary_cross_entropy_with_logits({a}, {b})", f"F.kl_div({a}, {b}, reduction='sum')",
                  f"F.cosine_similarity({a}, {b}, -1)", f"F.soft_margin_loss({a}, {b})")  # fmt: skip


# -- control flow ------------------------------------------------------------------------------------------


@block(2)
def branch_on_size(m: Maker) -> str:
    a = m.at_least(1)
    return f"if {a}.shape[0] > {m.rng.randint(0, 6)}:\n    OUT = {a} * 2\nelse:\n    OUT = {a} + 1"


@block(1)
def branch_on_value(m: Maker) -> str:
    a = m.any()
    return f"if bool({a}.sum() > {m.number()}):\n    OUT = {a} * 2\nelse:\n    OUT = {a} - 1"


@block(1)
def repeated(m: Maker) -> str:
    a = m.any()
    return f"OUT = {a}\nfor i in range({m.rng.randint(1, 3)}):\n    OUT = OUT + i * {a}"


@block(0.6)
def repeated_update(m: Maker) -> str:
    a = m.at_least(1)
    return f"OUT = {a}.clone()\nfor i in range({a}.shape[0]):\n    OUT[i] = OUT[i] + i"


@block(0.6)
def repeated_until(m: Maker) -> str:
    a = m.any(lambda t: t.is_floating_point() and t.numel() > 0)
    return f"OUT = {a}.abs() + 1\nwhile bool(OUT.sum() < {m.rng.randint(1, 40)}):\n    OUT = OUT * 2"


@block(0.8)
def gathered(m: Maker) -> str:
    a = m.any()
    join = m.pick("torch.stack(OUTs)", "torch.cat(OUTs)", "OUTs[-1]", "torch.cat(OUTs, -1)")
    return f"OUTs = [{a}]\nfor i in range({m.rng.randint(1, 3)}):\n    OUTs.append(OUTs[-1] * 2 - i)\nOUT = {join}"


@block(0.8)
def number_of_tensor(m: Maker) -> str:
    a = m.any(lambda t: not t.is_complex() and t.numel() > 0)
    read = m.pick(
        f"{a}.max().item()",
        f"float({a}.sum())",
        f"int({a}.sum())",
        f"{a}.numel()",
        f"{a}.size(-1)",
        f"{a}.dim()",
    )
    return f"n = {read}\nOUT = {m.any()} * n"


@block(1)
def branch_with_update(m: Maker) -> str:
    a = m.any()
    test = m.pick(f"bool({a}.sum() > 0)", f"{a}.numel() > {m.rng.randint(0, 30)}", f"{a}.dim() == 2")
    return f"OUT = {a}.clone()\nif {test}:\n    OUT.add_(1)\n    {a}.mul_(2)\nelse:\n    OUT = OUT - 1"


def make(seed: int) -> Program:
    """The program of a seed. What warns is left out, and so has to warn each time."""
    torch.set_warn_always(True)
    return Maker(seed).program()
