"""Sizes that no importer has looked at, those of a text and of what depends on data: ops check them themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import torch_tvm
from torch_tvm import InvalidInput

V = "!torch.vtensor"

TEXT = f"""
func.func @main(%x: {V}<[?],f32>, %y: {V}<[1,1,?,5],f32>, %z: {V}<[?],f32>) -> ({V}<[],f32>, {V}<[?,2],f32>,
    {V}<[1,1,?,2],f32>, {V}<[3],f32>, {V}<[],f32>) {{
  %m1 = torch.constant.int -1
  %0 = torch.constant.int 0
  %1 = torch.constant.int 1
  %2 = torch.constant.int 2
  %3 = torch.constant.int 3
  %t = torch.constant.bool true
  %f = torch.constant.bool false
  %a = torch.aten.select.int %x, %0, %3 : {V}<[?],f32>, !torch.int, !torch.int -> {V}<[],f32>
  %s = torch.prim.ListConstruct %m1, %2 : (!torch.int, !torch.int) -> !torch.list<int>
  %b = torch.aten.view %x, %s : {V}<[?],f32>, !torch.list<int> -> {V}<[?,2],f32>
  %k = torch.prim.ListConstruct %3, %3 : (!torch.int, !torch.int) -> !torch.list<int>
  %d = torch.prim.ListConstruct %2, %2 : (!torch.int, !torch.int) -> !torch.list<int>
  %p = torch.prim.ListConstruct %0, %0 : (!torch.int, !torch.int) -> !torch.list<int>
  %g = torch.prim.ListConstruct %1, %1 : (!torch.int, !torch.int) -> !torch.list<int>
  %c = torch.aten.max_pool2d %y, %k, %d, %p, %g, %f : {V}<[1,1,?,5],f32>, !torch.list<int>, !torch.list<int>,
      !torch.list<int>, !torch.list<int>, !torch.bool -> {V}<[1,1,?,2],f32>
  %e:2 = torch.aten.topk %z, %3, %0, %t, %t : {V}<[?],f32>, !torch.int, !torch.int, !torch.bool, !torch.bool
      -> {V}<[3],f32>, {V}<[3],si64>
  %h = torch.aten.matmul %x, %z : {V}<[?],f32>, {V}<[?],f32> -> {V}<[],f32>
  return %a, %b, %c, %e#0, %h : {V}<[],f32>, {V}<[?,2],f32>, {V}<[1,1,?,2],f32>, {V}<[3],f32>, {V}<[],f32>
}}
"""


def _eager(x: Tensor, y: Tensor, z: Tensor) -> Any:
    return x[3], x.view(-1, 2), F.max_pool2d(y, 3, 2), z.topk(3)[0], x @ z


def test_text() -> None:
    """``x[3]`` of an empty tensor was read, and ended the process; the others gave numbers."""
    compiled = torch_tvm.compile(torch_tvm.parse(TEXT))
    answers = 0
    for n, m, k in (
        (4, 3, 4),
        (0, 3, 0),
        (2, 3, 2),
        (5, 3, 5),
        (6, 2, 6),
        (6, 0, 6),
        (6, 5, 5),
        (6, 5, 1),
        (6, 5, 6),
    ):
        arguments = (torch.randn(n), torch.randn(1, 1, m, 5), torch.randn(k))
        try:
            want = _eager(*arguments)
        except (RuntimeError, IndexError):
            with pytest.raises(InvalidInput):
                print(n, m, k, compiled(*arguments))
            continue
        answers += 1
        torch.testing.assert_close(compiled(*arguments), want)
    assert answers == 2


def chosen_pairs(x: Tensor) -> Tensor:
    return x[x > 0].view(-1, 2) * 2


def test_of_data() -> None:
    compiled = torch_tvm.compile(torch.jit.script(chosen_pairs), (torch.ones(4),))
    assert torch.equal(compiled(torch.tensor([1.0, 2.0, -1.0, -1.0])), torch.tensor([[2.0, 4.0]]))
    with pytest.raises(InvalidInput):  # two of the three were returned
        compiled(torch.tensor([1.0, 2.0, 3.0, -1.0]))


WRITES = f"""
func.func @main(%x: {V}<[?],f32>, %p: {V}<[?],f32>, %m: {V}<[?,?],f32>, %r: {V}<[?],f32>, %t: {V}<[?,3],f32>,
    %j: {V}<[?,?],si64>, %s: {V}<[?,?],f32>, %c: {V}<[1,1,?,?],f32>, %k: {V}<[1,?,5],f32>, %w: {V}<[2,?,3],f32>) -> (
    {V}<[?],f32>, {V}<[?,?],f32>, {V}<[?],f32>, {V}<[?,?],f32>, {V}<[?,3],f32>, {V}<[1,9,?],f32>,
    {V}<[1,1,2,2],f32>, {V}<[1,2,3],f32>) {{
  %0 = torch.constant.int 0
  %1 = torch.constant.int 1
  %2 = torch.constant.int 2
  %3 = torch.constant.int 3
  %f = torch.constant.bool false
  %none = torch.constant.none
  %a = torch.aten.slice_scatter %x, %p, %0, %1, %3, %1 : {V}<[?],f32>, {V}<[?],f32>, !torch.int, !torch.int,
      !torch.int, !torch.int -> {V}<[?],f32>
  %b = torch.aten.select_scatter %m, %r, %0, %1 : {V}<[?,?],f32>, {V}<[?],f32>, !torch.int, !torch.int -> {V}<[?,?],f32>
  %l1 = torch.prim.ListConstruct %1 : (!torch.int) -> !torch.list<int>
  %d = torch.aten.amax %m, %l1, %f : {V}<[?,?],f32>, !torch.list<int>, !torch.bool -> {V}<[?],f32>
  %e = torch.aten.gather %t, %0, %j, %f : {V}<[?,3],f32>, !torch.int, {V}<[?,?],si64>, !torch.bool -> {V}<[?,?],f32>
  %g = torch.aten.scatter_add %t, %0, %j, %s : {V}<[?,3],f32>, !torch.int, {V}<[?,?],si64>, {V}<[?,?],f32>
      -> {V}<[?,3],f32>
  %l3 = torch.prim.ListConstruct %3, %3 : (!torch.int, !torch.int) -> !torch.list<int>
  %l11 = torch.prim.ListConstruct %1, %1 : (!torch.int, !torch.int) -> !torch.list<int>
  %l00 = torch.prim.ListConstruct %0, %0 : (!torch.int, !torch.int) -> !torch.list<int>
  %h = torch.aten.im2col %c, %l3, %l11, %l00, %l11 : {V}<[1,1,?,?],f32>, !torch.list<int>, !torch.list<int>,
      !torch.list<int>, !torch.list<int> -> {V}<[1,9,?],f32>
  %l2 = torch.prim.ListConstruct %2, %2 : (!torch.int, !torch.int) -> !torch.list<int>
  %i = torch.aten.adaptive_avg_pool2d %c, %l2 : {V}<[1,1,?,?],f32>, !torch.list<int> -> {V}<[1,1,2,2],f32>
  %l0 = torch.prim.ListConstruct %0 : (!torch.int) -> !torch.list<int>
  %n = torch.aten.conv1d %k, %w, %none, %l1, %l0, %l1, %2 : {V}<[1,?,5],f32>, {V}<[2,?,3],f32>, !torch.none,
      !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.int -> {V}<[1,2,3],f32>
  return %a, %b, %d, %e, %g, %h, %i, %n : {V}<[?],f32>, {V}<[?,?],f32>, {V}<[?],f32>, {V}<[?,?],f32>,
      {V}<[?,3],f32>, {V}<[1,9,?],f32>, {V}<[1,1,2,2],f32>, {V}<[1,2,3],f32>
}}
"""


def _written(
    x: Tensor,
    p: Tensor,
    m: Tensor,
    r: Tensor,
    t: Tensor,
    j: Tensor,
    s: Tensor,
    c: Tensor,
    k: Tensor,
    w: Tensor,
) -> Any:
    return (
        x.slice_scatter(p, 0, 1, 3),
        m.select_scatter(r, 0, 1),
        m.amax(1),
        t.gather(0, j),
        t.scatter_add(0, j, s),
        F.unfold(c, 3),
        F.adaptive_avg_pool2d(c, 2),
        F.conv1d(k, w, groups=2),
    )


_FITTING = [(5,), (2,), (3, 4), (4,), (4, 3), (2, 3), (2, 3), (1, 1, 5, 4), (1, 4, 5), (2, 2, 3)]
_OTHERS: list[tuple[int, tuple[int, ...]]] = [
    (1, (0,)),
    (1, (3,)),
    (0, (2,)),
    (3, (0,)),
    (3, (5,)),
    (2, (1, 4)),
    (2, (3, 0)),
    (5, (2, 4)),
    (5, (2, 2)),
    (6, (1, 3)),
    (6, (4, 4)),
    (4, (0, 3)),
    (7, (1, 1, 2, 4)),
    (7, (1, 1, 0, 4)),
    (7, (1, 1, 3, 3)),
    (8, (1, 3, 5)),
    (8, (1, 2, 5)),
    (9, (2, 4, 3)),
]


def test_sizes_of_what_is_written_and_read() -> None:
    """Several read beyond their operands, and ended the process; others gave numbers for what eager refuses."""
    compiled = torch_tvm.compile(torch_tvm.parse(WRITES), fallback=False)
    answers = 0
    for place, shape in [(0, _FITTING[0]), *_OTHERS]:
        shapes = [*_FITTING[:place], shape, *_FITTING[place + 1 :]]
        arguments = [torch.randn(each) for each in shapes]
        arguments[5] = torch.randint(0, 4, shapes[5])
        try:
            want = _written(*arguments)
        except (RuntimeError, IndexError):
            with pytest.raises(InvalidInput):
                print(shapes, compiled(*arguments))
            continue
        answers += 1
        torch.testing.assert_close(compiled(*arguments), want)
    assert answers == 4


SAMPLED = f"""
func.func @main(%x: {V}<[?,?,?,?],f32>, %g: {V}<[?,2,2,2],f32>, %w: {V}<[?],f32>) -> (
    {V}<[?,?,2,2],f32>, {V}<[?,?,4,4],f32>, {V}<[?,?,?,?],f32>) {{
  %0 = torch.constant.int 0
  %4 = torch.constant.int 4
  %f = torch.constant.bool false
  %none = torch.constant.none
  %a = torch.aten.grid_sampler %x, %g, %0, %0, %f : {V}<[?,?,?,?],f32>, {V}<[?,2,2,2],f32>, !torch.int, !torch.int,
      !torch.bool -> {V}<[?,?,2,2],f32>
  %s = torch.prim.ListConstruct %4, %4 : (!torch.int, !torch.int) -> !torch.list<int>
  %b = torch.aten.upsample_bilinear2d %x, %s, %f, %none, %none : {V}<[?,?,?,?],f32>, !torch.list<int>, !torch.bool,
      !torch.none, !torch.none -> {V}<[?,?,4,4],f32>
  %c = torch.aten.prelu %x, %w : {V}<[?,?,?,?],f32>, {V}<[?],f32> -> {V}<[?,?,?,?],f32>
  return %a, %b, %c : {V}<[?,?,2,2],f32>, {V}<[?,?,4,4],f32>, {V}<[?,?,?,?],f32>
}}
"""


def test_images_of_a_text() -> None:
    """A grid of another batch, an empty image, as many slopes as there are no channels: each was read past its end."""
    compiled = torch_tvm.compile(torch_tvm.parse(SAMPLED), fallback=False)
    for shape, batch, slopes in (((2, 3, 4, 5), 2, 3), ((2, 3, 4, 5), 2, 1)):
        x, grid, weight = torch.randn(shape), torch.rand(batch, 2, 2, 2) * 2 - 1, torch.randn(slopes)
        sampled = F.grid_sample(x, grid, align_corners=False)
        want = sampled, F.interpolate(x, (4, 4), mode="bilinear", align_corners=False), F.prelu(x, weight)
        for ours, eager in zip(compiled(x, grid, weight), want, strict=True):
            torch.testing.assert_close(ours, eager)
    for shape, batch, slopes in (
        ((2, 3, 4, 5), 1, 3),
        ((2, 3, 0, 5), 2, 3),
        ((2, 3, 4, 5), 2, 2),
        ((1, 1, 4, 5), 1, 3),
    ):
        with pytest.raises(InvalidInput):
            compiled(torch.randn(shape), torch.rand(batch, 2, 2, 2), torch.randn(slopes))


def _tallies(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.bincount(x[x > 0].long(), y[y > 0]), y


def _ranks(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x[x > 0].quantile(0.5), y


@pytest.mark.parametrize(("program", "other"), [(_tallies, 1.0), (_ranks, -1.0)])
def test_what_is_selected_is_checked_before_it_is_read(program: Any, other: float) -> None:
    x, y = torch.tensor([1.0, -1, 2]), torch.tensor([3.0, 4, -1])
    compiled = torch_tvm.compile(torch.jit.script(program), (x, y), fallback=False)
    torch.testing.assert_close(compiled(x, y), program(x, y), rtol=0, atol=0)
    for call in (program, compiled):
        with pytest.raises(RuntimeError, match=r"same length as input|must be non-empty"):
            call(torch.full((3,), other), y)


def test_distinct_elements_keep_every_nan() -> None:
    x = torch.tensor([1.0, float("nan"), 1, -0.0, 0, float("nan")])
    unique = torch_tvm.compile(
        lambda *xs: [torch.unique(x) for x in xs],
        several := tuple(x.to(dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64)),
        fallback=False,
    )
    expected = [torch.unique(x) for x in several]
    torch.testing.assert_close(list(unique(*several)), expected, rtol=0, atol=0, equal_nan=True)


def _copied(x: Tensor) -> Tensor:
    b = torch.zeros(2, 3)
    b[1].copy_(x[x > 0])
    b[0] = x[x < 0]
    return b


def _into_selection(x: Tensor) -> Tensor:
    b = x[x > 0].clone()
    b.copy_(x[x < 0])
    b += x[x < 0]
    return b


@pytest.mark.parametrize("program", [_copied, _into_selection])
@pytest.mark.parametrize("script", [False, True])
def test_writing_a_selection_keeps_the_shape(program: Any, script: bool) -> None:
    """A selection of another size gave the tensor that it was written into that size."""
    example = (torch.tensor([1.0, -1, 2, -3, 5, -6]),)
    module = torch.jit.script(program) if script else torch.jit.trace(program, example)
    compiled = torch_tvm.compile(module, example, fallback=False)
    for row in (
        [1, 2, 3, -1, -2, -3],
        [1, 2, 3, -1, 0, 0],
        [1, 0, 0, -2, 0, 0],
        [1, 2, -1, -1, 0, 0],
        [0] * 6,
    ):
        x = torch.tensor(row, dtype=torch.float32)
        try:
            expected = program(x)
        except RuntimeError:
            with pytest.raises(InvalidInput):
                compiled(x)
        else:
            torch.testing.assert_close(compiled(x), expected, rtol=0, atol=0)
