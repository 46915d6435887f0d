"""Generated programs (arithmetic, branches, loops, lists, in-place updates) against eager TorchScript."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch_tvm.importers.torchscript import import_torchscript

TENSORS = ("x", "y", "z")
NUMBERS = ("n", "m")


@st.composite
def expressions(draw: st.DrawFn, depth: int = 2) -> str:
    """A tensor expression whose values stay small."""
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(TENSORS))
    left = draw(expressions(depth=depth - 1))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return f"torch.tanh({left} + {draw(expressions(depth=depth - 1))})"
    if kind == 1:
        return f"torch.clamp({left} - {draw(st.sampled_from(NUMBERS))}, -4.0, 4.0)"
    if kind == 2:
        return f"torch.sin({left} * {draw(st.sampled_from(['0.5', '2', 'n', 'm']))})"
    if kind == 3:
        return f"torch.where({left} > 0, {left}, {draw(expressions(depth=depth - 1))})"
    return f"({left}).flip(0)"


@st.composite
def conditions(draw: st.DrawFn) -> str:
    number = draw(st.sampled_from(NUMBERS))
    tensor = draw(st.sampled_from(TENSORS))
    return draw(
        st.sampled_from(
            [
                f"{number} > 1",
                f"{number} % 2 == 0",
                f"bool({tensor}.sum() > 0)",
                f"float({tensor}[0]) < 0.5",
                "n < m",
            ]
        )
    )


@st.composite
def statements(draw: st.DrawFn, depth: int, in_loop: bool = False) -> list[str]:
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 8 if depth else 5))
        name = draw(st.sampled_from(TENSORS))
        if kind <= 1:
            lines.append(f"{name} = {draw(expressions())}")
        elif kind == 2:
            number, other = draw(st.permutations(NUMBERS))
            lines.append(f"{number} = min({number} + {draw(st.sampled_from(['1', '-1', other]))}, 5)")
        elif kind == 3:
            lines.append(f"acc[{draw(st.sampled_from(['0', '1:', 'n % 3']))}] += {draw(st.sampled_from(['1.0', 'm']))}")
        elif kind == 4:
            lines.append(f"xs.append({name})")
        elif kind == 5:
            lines.append(draw(st.sampled_from(["m = m + len(xs)", f"{name} = xs[0]", "m = min(m, 4)"])))
        elif kind == 6 or (kind == 8 and not in_loop):
            lines.append(f"if {draw(conditions())}:")
            lines += indented(draw(statements(depth=depth - 1, in_loop=in_loop)))
            lines.append("else:")
            lines += indented(draw(statements(depth=depth - 1, in_loop=in_loop)))
        elif kind == 7:
            lines.append(f"for i in range({draw(st.sampled_from(['2', 'n', 'min(m, 3)']))}):")
            lines += indented(draw(statements(depth=depth - 1, in_loop=True)))
        else:
            lines.append(f"if {draw(conditions())}:")
            lines += indented([draw(st.sampled_from(["break", "continue"]))])
    return lines


def indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


@st.composite
def programs(draw: st.DrawFn) -> str:
    body = [
        "z = x * 0.5",
        "m = 2",
        "acc = torch.zeros(3)",
        "xs = [x]",
        *draw(statements(depth=2)),
        "return x + z, y, acc, torch.stack(xs).sum(0), n, m",
    ]
    return "\n".join(["def f(x: Tensor, y: Tensor, n: int):", *indented(body), ""])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(programs(), st.integers(0, 2**31))
def test_generated_program(source: str, seed: int) -> None:
    scripted = torch.jit.CompilationUnit(source).f
    generator = torch.Generator().manual_seed(seed)
    module = import_torchscript(scripted, (torch.ones(3), torch.ones(3), 1))
    assert module.signature.constants == {}
    for n in (0, 1, 3):
        x, y = (torch.randn(3, generator=generator) for _ in range(2))
        for got, want in zip(module(x, y, n), scripted(x, y, n), strict=True):
            if isinstance(want, torch.Tensor):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, msg=lambda m: f"{m}\n{source}")
            else:
                assert got == want, source
