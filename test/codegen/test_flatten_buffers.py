"""Index maps stay what they are on the way to flat buffers: falling, shifted and nested quotients,
and reversed views.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tvm
import tvm_ffi
from lowering.rows import CasesModule
from tvm import tirx
from tvm.ir import TensorLoad, Var

import torch_tvm
from torch_tvm.codegen.tir.flatten_buffers import flatten_buffers

EXTENTS = (1, 2, 3, 4, 6, 8, 12)
SIZES = (1, 2, 3, 4, 8, 12, 16, 24)


def constant(value: int) -> tirx.Expr:
    return tirx.IntImm("int64", value)


def index_map(r: random.Random, variables: list[Var], depth: int) -> tirx.Expr:
    """A random expression of the variables: rising and falling, shifted, under quotients of quotients."""
    kind = r.random()
    if depth == 0 or kind < 0.2:
        scaled = r.choice(variables) * constant(r.choice([-3, -2, -1, -1, 1, 1, 1, 1, 1, 2, 4]))
        return r.choice([scaled, scaled + constant(r.randint(-8, 20)), constant(r.randint(-8, 20)) + scaled])
    left = index_map(r, variables, depth - 1)
    if kind < 0.55:
        right = index_map(r, variables, depth - 1)
        return left + right if kind < 0.45 else left - right
    if kind < 0.63:
        return left * constant(r.choice([-2, -1, 2, 3, 4]))
    if kind < 0.66:
        return tirx.Select(r.choice(variables) < constant(3), left, index_map(r, variables, depth - 1))
    divisor = constant(r.choice([2, 3, 4, 6, 8, 12]))
    return tirx.floormod(left, divisor) if kind < 0.85 else tirx.floordiv(left, divisor)


def value_of(expr: Any, point: dict[str, Any]) -> Any:
    """What an expression is, by numpy."""
    if isinstance(expr, tirx.IntImm):
        return int(expr)
    if isinstance(expr, Var):
        return point[expr.name]
    if isinstance(expr, tirx.Select):
        parts = (expr.condition, expr.true_value, expr.false_value)
        return np.where(*(value_of(part, point) for part in parts))
    a, b = value_of(expr.a, point), value_of(expr.b, point)
    match expr:
        case tirx.Add():
            return a + b
        case tirx.Sub():
            return a - b
        case tirx.Mul():
            return a * b
        case tirx.FloorDiv():
            return a // b
        case tirx.FloorMod():
            return a % b
        case tirx.LT():
            return a < b
        case tirx.Min():
            return np.minimum(a, b)
        case tirx.Max():
            return np.maximum(a, b)
    raise AssertionError(type(expr).__name__)


def loops_around(
    load: TensorLoad, variables: list[Var], extents: list[int], condition: tirx.Expr | None, bound: Any
) -> tvm.IRModule:
    target = tirx.decl_buffer(extents, "float32", "C")
    body: tirx.Stmt = tirx.BufferStore(target, load, variables)
    if condition is not None:
        body = tirx.IfThenElse(condition, body, None)
    if bound is not None:
        body = tirx.SeqStmt([tirx.Bind(*bound), body])
    for variable, extent in reversed(list(zip(variables, extents, strict=True))):
        body = tirx.For(variable, constant(0), constant(extent), tirx.ForKind.SERIAL, body)
    function = tirx.PrimFunc([load.source, target], body).with_attr("global_symbol", "main")
    return tvm.IRModule({"main": function})


def test_random_index_maps() -> None:
    seed = random.randrange(1 << 30)
    r = random.Random(seed)
    for number in range(500):
        extents = [r.choice(EXTENTS) for _ in range(r.randint(1, 3))]
        variables = [Var(f"v{axis}", "int64") for axis in range(len(extents))]
        named = [*variables]
        bound = (Var("b", "int64"), index_map(r, variables, 1)) if r.random() < 0.2 else None
        if bound is not None:
            named.append(bound[0])
        shape = [r.choice(SIZES) for _ in range(r.randint(1, 3))]
        indices = [index_map(r, named, r.randint(0, 3)) for _ in shape]
        if r.random() < 0.5:
            indices = [tirx.floormod(i, constant(size)) for i, size in zip(indices, shape, strict=True)]
        condition = index_map(r, variables, r.randint(0, 1)) < constant(9) if r.random() < 0.3 else None
        load = tirx.BufferLoad(tirx.decl_buffer(shape, "float32", "B"), indices)
        flat = flatten_buffers(loops_around(load, variables, extents, condition, bound))

        grid = np.meshgrid(*(np.arange(extent) for extent in extents), indexing="ij")
        point: dict[str, Any] = dict(zip((v.name for v in variables), grid, strict=True))
        if bound is not None:
            point["b"] = value_of(bound[1], point)
        runs = np.broadcast_to(True if condition is None else value_of(condition, point), extents)
        wanted: Any = 0
        for size, index in zip(shape, indices, strict=True):
            wanted = wanted * size + value_of(index, point)
        loads: list[TensorLoad] = []
        tvm_ffi.structural_walk(flat["main"].body, (TensorLoad, loads.append))
        where = f"seed {seed}, number {number}: {indices} if {condition} for {extents}, {bound}"
        if not loads:  # a condition that never holds
            assert not runs.any(), where
            continue
        got = value_of(loads[0].indices[0], point)
        assert np.array_equal(np.broadcast_to(wanted, extents)[runs], np.broadcast_to(got, extents)[runs]), (
            f"{where} became {loads[0]}"
        )


def test_what_tvm_loses() -> None:
    """When this fails TVM has been mended, and ``flatten_buffers`` may be ``FlattenBuffer`` again."""
    i = Var("i", "int64")
    for index, wrong in (
        ((constant(3) - i) % constant(12), lambda i: -i % 12),
        ((i + constant(9)) // constant(2) % constant(8), lambda i: (i + 8) // 2),
    ):
        ranges = {i: tvm.ir.Range(constant(0), constant(4))}
        (simplified,) = tvm.sym.iter_map_simplify([index], ranges, tirx.const(True, "bool"))
        found = [value_of(simplified, {"i": n}) for n in range(4)]
        assert found == [wrong(n) for n in range(4)] != [value_of(index, {"i": n}) for n in range(4)]


def test_a_loop_that_cancels_out() -> None:
    """``v - v < 7`` ends TVM's pass with a division by zero."""
    v = Var("v", "int64")
    load = tirx.BufferLoad(tirx.decl_buffer((8,), "float32", "B"), [v])
    condition = v * constant(-1) + v * constant(1) + constant(2) < constant(7)
    flat = flatten_buffers(loops_around(load, [v], [8], condition, None))
    assert "B" in str(flat["main"])


def reflected(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    return F.pad(x.view(1, 2, -1), (before, after), "reflect")


def mirrored(x: torch.Tensor, dim: int) -> torch.Tensor:
    flat = x.flatten(1)
    return torch.cat([flat, flat.flip(dim)], dim)


def turned(x: torch.Tensor, shift: int) -> torch.Tensor:
    return x.flatten(1).roll(shift, 1).view(2, 4, -1).flip(1).flatten(1).roll(-1, 1).view(x.shape).transpose(0, 1)


def check(function: Any, cases: list[tuple[Any, ...]]) -> None:
    program = CasesModule(function, cases)
    compiled = torch_tvm.compile(program, tuple(program.arguments))
    for case, ours in zip(cases, compiled(*program.arguments), strict=True):
        torch.testing.assert_close(ours, function(*case))


def test_reversed_views() -> None:
    integers = lambda *shape: torch.randint(0, 999, shape)
    check(reflected, [(integers(2, 40), 8, 8), (integers(80), 3, 0), (integers(4, 5), 1, 9)])
    check(mirrored, [(integers(2, 3, 4), 1), (integers(3, 2, 2), 0), (integers(2, 3, 5).transpose(1, 2), 1)])
    check(turned, [(integers(2, 3, 4), 5), (integers(2, 2, 6), -3), (integers(2, 12, 1), 1)])


def test_reversed_views_of_unknown_sizes() -> None:
    class Mirrored(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return mirrored(x, 1)

    sizes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC},)
    compiled = torch_tvm.compile(Mirrored(), (torch.randn(3, 4, 5),), dynamic_shapes=sizes)
    for shape in ((3, 4, 5), (2, 4, 3), (5, 4, 1)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), mirrored(x, 1))
