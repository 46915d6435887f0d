"""Small TorchScript programs with control flow and data structures, each with the arguments to run it on.

``PROGRAMS`` holds ``Case(name, function, calls)``; a program is imported for the first call and run on all of
them. Annotations are old-style (``List``, ``Optional``) because ``torch.jit.script`` reads them.
"""

# ruff: noqa: UP006, UP007, UP035, UP045, B007, B905, RUF005
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A program and the calls to check it on."""

    name: str
    function: Callable[..., Any]
    calls: List[Tuple[Any, ...]]


PROGRAMS: List[Case] = []


def case(*calls: Tuple[Any, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        PROGRAMS.append(Case(function.__name__, function, list(calls)))
        return function

    return register


def t(*values: float) -> Tensor:
    return torch.tensor(values)


A = torch.linspace(-2.0, 3.0, 12).reshape(3, 4)
B = torch.linspace(1.0, -1.5, 12).reshape(3, 4)
POS, NEG = t(1.0, 2.0, 0.5), t(-1.0, 0.25, -3.0)


class Mode(Enum):
    DOUBLE = 2
    TRIPLE = 3


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Pair(NamedTuple):
    left: Tensor
    count: int  # type: ignore[assignment]


@torch.jit.script
class Counter:
    def __init__(self, start: int):
        self.total = start
        self.history: List[int] = []

    def add(self, n: int) -> int:
        self.total += n
        self.history.append(n)
        return self.total


@torch.jit.script
class Accumulator:
    def __init__(self, value: Tensor):
        self.value = value

    def push(self, x: Tensor):
        self.value = self.value + x


# -- if ------------------------------------------------------------------------------------------------------


@case((POS,), (NEG,))
def if_on_data(x: Tensor) -> Tensor:
    if x.sum() > 0:
        y = x * 2
    else:
        y = x - 1
    return y + 1


@case((POS,), (NEG,), (t(10.0, 1.0, 1.0),))
def nested_if(x: Tensor) -> Tensor:
    s = float(x.sum())
    if s > 0:
        if s > 5:
            return x * 3
        y = x + 1
    else:
        y = -x
    return y * 2


@case((POS,), (NEG,))
def if_else_if_chain(x: Tensor) -> Tensor:
    m = x.max().item()
    if m > 1.5:
        out = x.exp()
    elif m > 0:
        out = x.sin()
    else:
        out = x.cos()
    return out


@case((A, 3), (A, 0), (A, -2))
def if_on_int(x: Tensor, n: int) -> Tensor:
    if n > 0:
        return x * n
    elif n == 0:
        return x
    return x - n


@case((POS, True), (POS, False))
def if_on_bool(x: Tensor, flip: bool) -> Tensor:
    return -x if flip else x


@case((A, 0.5), (A, -0.5))
def if_on_float(x: Tensor, alpha: float) -> Tensor:
    if alpha > 0 and alpha < 1:
        x = x * alpha
    if alpha < 0 or alpha > 1:
        x = x / alpha
    return x


@case((POS,), (NEG,))
def if_changes_shape(x: Tensor) -> Tensor:
    if x.sum() > 0:
        y = torch.cat([x, x])
    else:
        y = x
    return y + 1


@case((POS,), (NEG,))
def if_updates_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    if x.sum() > 0:
        y[0] = 7.0
    else:
        y.add_(1.0)
    return y


@case((POS,), (NEG,))
def if_updates_view(x: Tensor) -> Tuple[Tensor, Tensor]:
    y = x.clone()
    z = y[1:]
    if x.sum() > 0:
        z.mul_(10.0)
    return y, z


@case((POS,), (NEG,))
def if_returns_early(x: Tensor) -> Tensor:
    if bool(x[0] < 0):
        return x.abs()
    y = x * 2
    if bool(x[1] > 1):
        return y
    return y + 1


@case((POS,), (NEG,))
def if_joins_numbers(x: Tensor) -> Tuple[Tensor, int, float]:
    n, f = 1, 0.5
    if x.sum() > 0:
        n, f = 2, 1.5
    return x * n, n, f


@case((POS,), (NEG,))
def if_joins_tuple(x: Tensor) -> Tensor:
    pair = (x, x + 1) if bool(x.sum() > 0) else (x * 3, x)
    return pair[0] - pair[1]


@case((POS,), (NEG,))
def if_joins_list(x: Tensor) -> Tensor:
    xs = [x]
    if x.sum() > 0:
        xs.append(x * 2)
    else:
        xs.append(x * 3)
    return torch.cat(xs)


@case((POS,), (NEG,))
def if_grows_list(x: Tensor) -> Tensor:
    xs = [x]
    if x.sum() > 0:
        xs.append(x * 2)
    return torch.stack(xs).sum(0)


@case((POS,), (NEG,))
def if_joins_object(x: Tensor) -> Tensor:
    acc = Accumulator(x)
    if x.sum() > 0:
        acc.push(x)
    return acc.value


@case((A, None), (A, B))
def if_on_optional(x: Tensor, other: Optional[Tensor] = None) -> Tensor:
    if other is not None:
        x = x + other
    return x


@case((A,))
def if_on_shape(x: Tensor) -> Tensor:
    if x.dim() == 2 and x.size(0) != x.size(1):
        return x.t()
    return x


@case((POS,), (NEG,))
def assert_holds(x: Tensor) -> Tensor:
    assert x.size(0) == 3, "three elements"
    assert bool((x < 100).all()), "small elements"
    return x + 1


@case((POS,), (NEG,))
def condition_expression(x: Tensor) -> Tensor:
    flag = bool(x[0] > 0) and not bool(x[1] > 1.5)
    return torch.where(x > 0, x, -x) * (2 if flag else 3)


@case((POS,), (NEG,))
def optional_set_at_run_time(x: Tensor) -> Tensor:
    y: Optional[Tensor] = None
    if x.sum() > 0:
        y = x * 2
    if y is None:
        z = x - 1
    else:
        z = y + 1
    return z


# -- loops ---------------------------------------------------------------------------------------------------


@case((A,))
def for_static(x: Tensor) -> Tensor:
    for i in range(3):
        x = x * 2 + i
    return x


@case((POS, 0), (POS, 1), (POS, 37))
def for_dynamic(x: Tensor, n: int) -> Tensor:
    for i in range(n):
        x = x * 0.5 + i
    return x


@case((POS, torch.tensor(0)), (POS, torch.tensor(1)), (POS, torch.tensor(1000)))
def for_from_tensor(x: Tensor, n: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for i in range(int(n)):
        total = total + x / (i + 1)
    return total


@case((POS, 1, 9, 2), (POS, 5, 5, 1), (POS, 9, 0, -3))
def for_with_step(x: Tensor, start: int, stop: int, step: int) -> Tensor:
    for i in range(start, stop, step):
        x = x + i
    return x


@case((POS,), (NEG,), (t(900.0, 1.0, 1.0),))
def while_on_data(x: Tensor) -> Tensor:
    while x.sum() > 1:
        x = x * 0.5
    return x


@case((100,), (1,), (27,))
def while_collatz(n: int) -> int:
    steps = 0
    while n > 1:
        if n % 2 == 0:
            n = n // 2
        else:
            n = 3 * n + 1
        steps += 1
    return steps


@case((POS, 5), (NEG, 5), (POS, 0))
def for_with_break(x: Tensor, n: int) -> Tensor:
    for i in range(n):
        x = x * 2
        if x.sum() > 20:
            break
    return x


@case((POS, 6), (NEG, 1))
def for_with_continue(x: Tensor, n: int) -> Tensor:
    y = torch.zeros_like(x)
    for i in range(n):
        if i % 3 == 1:
            continue
        y = y + x * i
    return y


@case((POS,), (NEG,))
def for_returns_early(x: Tensor) -> Tensor:
    for i in range(4):
        x = x + 1
        if bool(x.sum() > 8):
            return x * 100
    return x


@case((POS,), (t(50.0, 1.0, 1.0),))
def while_true_break(x: Tensor) -> Tensor:
    n = 0
    while True:
        x = x / 2
        n += 1
        if x.max() < 1:
            break
    return x + n


@case((A, 3), (A, 0))
def nested_loops(x: Tensor, n: int) -> Tensor:
    y = torch.zeros_like(x)
    for i in range(n):
        for j in range(i + 1):
            y = y + x * (i - j)
    return y


@case((A,))
def loop_over_tensor(x: Tensor) -> Tensor:
    total = torch.zeros(4)
    for row in x:
        total = total * 2 + row
    return total


@case((A,), (B,))
def loop_with_if(x: Tensor) -> Tensor:
    y = torch.zeros(4)
    for i in range(x.size(0)):
        if x[i].sum() > 0:
            y = y + x[i]
        else:
            y = y - 1
    return y


@case((POS, 3), (POS, 1), (POS, 0))
def loop_sets_optional(x: Tensor, n: int) -> Tensor:
    h: Optional[Tensor] = None
    for i in range(n):
        if h is None:
            h = x
        else:
            h = h + x * i
    if h is not None:
        return h
    return x - 1


@case((A, 0.5), (A, 1e9))
def loop_finds_row(x: Tensor, threshold: float) -> Tensor:
    found: Optional[Tensor] = None
    for row in x:
        if found is None and float(row.sum()) > threshold:
            found = row
    return torch.zeros(4) if found is None else found * 2


@case((POS, 4), (POS, 0))
def loop_updates_in_place(x: Tensor, n: int) -> Tensor:
    y = x.clone()
    for i in range(n):
        y += 1
        y[0] = y[0] * 2
    return y


@case((A, 3), (A, 1))
def loop_writes_rows(x: Tensor, n: int) -> Tensor:
    y = torch.zeros_like(x)
    for i in range(n):
        y[i] = x[i] * (i + 1)
    return y


@case((POS, 4), (POS, 1))
def loop_grows_tensor(x: Tensor, n: int) -> Tensor:
    y = x
    for i in range(n):
        y = torch.cat([y, x * i])
    return y


@case((POS, 4), (POS, 1), (POS, 0))
def loop_grows_list(x: Tensor, n: int) -> Tensor:
    xs = [x]
    for i in range(n):
        xs.append(x * i)
    return torch.stack(xs)


@case((POS, 5), (POS, 2))
def loop_list_cat(x: Tensor, n: int) -> Tensor:
    xs: List[Tensor] = []
    for i in range(n):
        xs.append(x + i)
    return torch.cat(xs)


@case((A,), (B,))
def loop_filters_rows(x: Tensor) -> Tensor:
    rows: List[Tensor] = [torch.zeros(4)]
    for i in range(x.size(0)):
        if x[i].sum() > 0:
            rows.append(x[i])
    return torch.stack(rows).mean(0)


@case((6,), (0,))
def loop_int_list(n: int) -> Tuple[int, Tensor]:
    xs: List[int] = []
    for i in range(n):
        xs.append(i * i)
    return len(xs), torch.tensor(xs)


@case((10,), (1,))
def fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


@case((48, 18), (7, 5))
def greatest_common_divisor(a: int, b: int) -> int:
    while b != 0:
        a, b = b, a % b
    return a


@case((2.0, 20), (9.0, 3))
def newton_sqrt(x: float, steps: int) -> float:
    guess = x
    for _ in range(steps):
        guess = 0.5 * (guess + x / guess)
    return guess


@case((A, 0.01), (A, 1000.0))
def power_iteration(x: Tensor, tolerance: float) -> Tuple[Tensor, int]:
    m = x @ x.t()
    v = torch.ones(3)
    change = 1e9
    steps = 0
    while change > tolerance and steps < 50:
        w = m @ v
        w = w / w.norm()
        change = float((w - v).abs().max())
        v = w
        steps += 1
    return v, steps


@case((A, 4), (A, 1))
def rnn_cell_loop(x: Tensor, steps: int) -> Tensor:
    h = torch.zeros(3, 4)
    for _ in range(steps):
        h = torch.tanh(x + 0.5 * h)
    return h


@case((A, 3), (A, 2))
def loop_carries_tuple(x: Tensor, n: int) -> Tensor:
    state = (x, x * 0)
    for _ in range(n):
        state = (state[1] + 1, state[0] * 2)
    return state[0] - state[1]


@case((A,))
def enumerate_and_zip(x: Tensor) -> Tensor:
    rows = x.unbind(0)
    scales = [1.0, 2.0, 3.0]
    total = torch.zeros(4)
    for i, (row, s) in enumerate(zip(rows, scales)):
        total = total + row * s + i
    return total


@case((POS, 5), (POS, 0))
def loop_changes_object(x: Tensor, n: int) -> Tensor:
    acc = Accumulator(x)
    for i in range(n):
        acc.push(x * i)
    return acc.value


@case((5,), (0,))
def loop_counts_in_object(n: int) -> int:
    counter = Counter(10)
    for i in range(n):
        counter.total += i
    return counter.total


@case((POS, 3), (NEG, 3))
def loop_flag(x: Tensor, n: int) -> Tuple[Tensor, bool]:
    found = False
    for i in range(n):
        if bool(x[i] > 1):
            found = True
    return x, found


@case((A,))
def for_long_static(x: Tensor) -> Tensor:
    for i in range(20000):
        x = x * 0.999 + 0.001
    return x


# -- data structures -----------------------------------------------------------------------------------------


@case((A,))
def list_operations(x: Tensor) -> Tuple[Tensor, List[int]]:
    xs = [3, 1, 2]
    xs.append(5)
    xs.insert(0, 9)
    xs.sort()
    last = xs.pop()
    xs.extend([last, 4])
    xs.reverse()
    xs[0] = xs[-1] + xs.index(5)
    return x * len(xs), xs[1:4] + [x.size(0)]


@case((A,))
def list_comprehension(x: Tensor) -> Tensor:
    rows = [row * i for i, row in enumerate(x.unbind(0))]
    return torch.stack([r for r in rows])


@case((A,))
def dict_operations(x: Tensor) -> Dict[str, Tensor]:
    d = {"a": x, "b": x + 1}
    d["c"] = d["a"] * d["b"]
    total = torch.zeros_like(x)
    for key, value in d.items():
        if key != "b":
            total = total + value
    d["total"] = total
    d.pop("a")
    return d


@case((A,))
def dict_of_ints(x: Tensor) -> Tensor:
    d: Dict[int, int] = {}
    for i in range(4):
        d[i] = i * i
    s = 0
    for k in d:
        s += d[k]
    return x * s if 3 in d else x


@case((A, 5), (A, 7))
def named_tuple_result(x: Tensor, n: int) -> Pair:
    p = Pair(x * n, n + 1)
    return Pair(p.left + p.count, p.count)


@case((A,))
def tuple_swap(x: Tensor) -> Tuple[Tensor, Tuple[int, float]]:
    a, (b, c) = x, (1, 2.5)
    a, b = a * c, b + 1
    return a, (b, c)


@case((A,))
def enum_choice(x: Tensor) -> Tensor:
    mode = Mode.TRIPLE
    if mode == Mode.DOUBLE:
        return x * 2
    return x * mode.value


@case((A, "relu"))
def string_choice(x: Tensor, name: str) -> Tensor:
    if name == "relu":
        return torch.relu(x)
    elif name.startswith("sig"):
        return torch.sigmoid(x)
    return x


@case((A,))
def script_class(x: Tensor) -> Tuple[Tensor, int]:
    c = Counter(1)
    for i in range(3):
        c.add(i)
    return x + c.total, len(c.history)


@case((A, 2))
def default_arguments(x: Tensor, n: int = 3, scale: float = 1.5) -> Tensor:
    return x * n * scale


@case((A,))
def fork_and_wait(x: Tensor) -> Tensor:
    future = torch.jit.fork(torch.relu, x)
    y = x.neg()
    return torch.jit.wait(future) + y


@case(([A, B], 1), ([B, A], 0))
def list_argument(xs: List[Tensor], i: int) -> Tensor:
    return xs[i] * 2 + xs[0]


@case(({"x": A, "y": B},))
def dict_argument(d: Dict[str, Tensor]) -> Tensor:
    return d["x"] - d["y"]


@case(((A, (B, 3)),))
def tuple_argument(p: Tuple[Tensor, Tuple[Tensor, int]]) -> Tensor:
    a, (b, n) = p
    return a * n + b


@case((A,))
def list_of_sizes(x: Tensor) -> Tensor:
    shape = list(x.shape)
    shape.append(1)
    return x.reshape(shape).expand(shape[0], shape[1], 2)


@case((A,))
def slices_and_indices(x: Tensor) -> Tensor:
    return x[1:, ::2] + x[0, -1] + x[..., None].squeeze(-1)[:2, 1:3] * x[[0, 2]][:, :2]


@case((POS, 2), (POS, 0))
def run_time_index(x: Tensor, i: int) -> Tensor:
    table = [1.0, 10.0, 100.0]
    return x[i] * table[i]


@case((A,))
def item_arithmetic(x: Tensor) -> float:
    a = float(x[0, 0])
    b = x[1, 1].item()
    return (a + 2) * 3 / 4 - a**2 + abs(a) + b


@case((7, 2), (-7, 2), (9, -4))
def integer_arithmetic(a: int, b: int) -> Tuple[int, int, float, int, int]:
    return a // b, a % b, a / b, max(a, b) - min(a, b), -a


@case((3, 0.5), (-2, 2.0))
def mixed_arithmetic(n: int, f: float) -> Tuple[float, bool, int]:
    return n * f + n - f / 2, n > f, int(f) + n


@case((4,), (1,))
def sizes_from_int(n: int) -> Tensor:
    return torch.zeros(n, 2) + torch.arange(n).unsqueeze(1)


@case((A,))
def format_in_message(x: Tensor) -> Tensor:
    n = x.size(0)
    if n > 100:
        raise ValueError(f"too many rows: {n}")
    return x


@case((A, B))
def in_place_chain(x: Tensor, y: Tensor) -> Tensor:
    z = x.clone()
    z.add_(y).mul_(2).clamp_(min=0.0)
    z[0, 1:3] = 5.0
    z[:, 0] += y[:, 0]
    z.t()[2].zero_()
    return z


@case((A,))
def views_stay_views(x: Tensor) -> Tuple[Tensor, Tensor]:
    y = x.clone()
    flat = y.view(-1)
    top = y[0]
    flat[2] = -1.0
    top.mul_(3.0)
    return y, flat


# -- more of the language -------------------------------------------------------------------------------------


@torch.jit.script
class Vec:
    def __init__(self, x: Tensor, y: Tensor):
        self.x = x
        self.y = y

    def __add__(self, o: "Vec") -> "Vec":
        return Vec(self.x + o.x, self.y + o.y)

    def dot(self) -> Tensor:
        return self.x * self.y

    @staticmethod
    def make(x: Tensor) -> "Vec":
        return Vec(x, x + 1)


class Point(NamedTuple):
    a: Tensor
    b: Optional[Tensor]
    c: List[int]


@torch.jit.script
def scaled(x: Tensor, scale: float = 2.0, shift: float = 0.5) -> Tensor:
    return x * scale + shift


@torch.jit.script
def minus_or_times(x: Tensor, n: int) -> Tensor:
    if n > 1:
        return x - n
    return x * n


@case((torch.ones(3), torch.tensor(0)), (torch.ones(3), torch.tensor(1)), (torch.ones(3), torch.tensor(5000)))
def while_continues_and_returns(x: Tensor, n: Tensor) -> Tensor:
    i = 0
    while i < int(n):
        i += 1
        if i % 2 == 0:
            continue
        if i > 4000:
            return x * i
        x = x * 0.99 + 1
    return x


@case((A, 3), (A, 0), (A, 1))
def nested_loops_break_and_return(x: Tensor, n: int) -> Tensor:
    out = torch.zeros(4)
    for i in range(n):
        for j in range(i + 2):
            if j == 1:
                continue
            if float(x[i % 3, j % 4]) > 2.5:
                break
            k = 0
            while k < 3:
                out = out + x[i % 3] * k
                if float(out.sum()) > 100:
                    return out
                k += 1
    return out


@case((A,))
def list_negative_indices(x: Tensor) -> Tuple[Tensor, int, int]:
    xs = [x[0], x[1], x[2]]
    xs[-1] = xs[-2] + 1
    ys = xs[-2:]
    ys.extend([x[0]])
    del ys[0]
    z = ys.pop(-2)
    ys.insert(-1, z * 3)
    ints = [5, 6, 7, 8]
    a, b = ints[-1], ints.pop(1)
    return torch.stack(ys + xs[::-1] if False else ys), a, b


@case((A,))
def list_copies_and_sorts(x: Tensor) -> Tuple[List[int], bool, int, List[int], List[float]]:
    ints = [3, 1, 2]
    c = ints.copy()
    c.sort(reverse=True)
    s = sorted(ints)
    m = max(ints) + min(ints) + sum(ints)
    fs = [0.5 * i for i in ints]
    ints.remove(1)
    ints.clear()
    return c, 3 in s, m + len(ints), s * 2, fs


@case((A, 4), (A, 0), (A, 1))
def comprehension_of_run_time_length(x: Tensor, n: int) -> Tensor:
    xs = [x[0] * i for i in range(n)]
    t = x[0]
    for y in xs:
        t = t + y
    return t


@case((A, 4), (A, 1))
def pop_from_run_time_length(x: Tensor, n: int) -> Tensor:
    xs = [x[0]]
    for i in range(n):
        xs.append(x[i % 3])
    last = xs.pop()
    return last + xs[-1] + len(xs)


@case((A, 4), (A, 2))
def int_list_of_run_time_length(x: Tensor, n: int) -> int:
    xs: List[int] = []
    for i in range(n):
        xs.append(i)
    xs[0] = 7
    return xs[0] + xs[-1] + len(xs) + sum(xs)


@case((A,))
def named_tuple_with_optional(x: Tensor) -> Tensor:
    p = Point(x, None, [1, 2])
    b = p.b
    if b is None:
        b = p.a * p.c[1]
    q = Point(b, x, [3])
    qb = q.b
    assert qb is not None
    return qb + q.a * q.c[0] + q[0]


@case((Point(A, None, [1, 2]),))
def named_tuple_argument(p: Point) -> Point:
    return Point(p.a * 2, p.a, p.c + [3])


@case(
    (A, "mean"),
)
def strings_enums_and_formats(x: Tensor, mode: str = "sum") -> Tensor:
    table = {"mean": 1, "sum": 2}
    k = table[mode]
    name = "m" + mode[1:]
    parts = "a,b,c".split(",")
    if name == "mean" and len(parts) == 3 and "ea" in mode and mode.upper() == "MEAN":
        x = x * k
    f = f"{mode}-{k}"
    if f == "mean-1":
        x = x + 1
    c = Color.RED
    if c == Color.BLUE or c.value == "blue" or c.name == "BLUE":
        return -x
    return x


@case((2.0, 3), (0.5, -3))
def math_functions(f: float, n: int) -> Tuple[float, float, float, int, int, int]:
    waves = math.sin(f) * math.cos(f) + math.tanh(f)
    growth = math.sqrt(f) + math.exp(f) + math.log(f)
    return growth, waves, math.pow(f, n), math.floor(f), math.ceil(f), n // 2 + n % 2


@case(
    (A,),
)
def fork_in_a_loop(x: Tensor) -> Tensor:
    futs: List[torch.jit.Future[Tensor]] = []
    for i in range(3):
        futs.append(torch.jit.fork(minus_or_times, x, i))
    out = x
    for f in futs:
        out = out + torch.jit.wait(f)
    return out


@case((A, None, 2), (A, A, 3))
def optional_number(x: Tensor, y: Optional[Tensor] = None, n: Optional[int] = None) -> Tensor:
    if n is not None:
        x = x * n
    if y is not None:
        x = x + y
    return x


@case((A,))
def dict_updates_and_views(x: Tensor) -> Tuple[Tensor, List[str], int]:
    d: Dict[str, Tensor] = {}
    d["a"] = x
    d["b"] = x * 2
    d.update({"c": x * 3})
    y = d.get("zz")
    if y is None:
        y = d.get("a", x)
    ks = list(d.keys())
    t = d["c"]
    for k, v in d.items():
        t = t + v
    e = {k: v.sum() for k, v in d.items()}
    for v in e.values():
        t = t + v
    d.setdefault("q", x)
    del d["a"]
    return t + d.pop("b") + y, ks, len(d)


@case((A, 5), (A, 1))
def dict_in_a_loop(x: Tensor, n: int) -> Tensor:
    d = {"s": x, "t": x * 0}
    for i in range(n):
        d["t"] = d["t"] + d["s"] * i
    return d["t"]


@case((A, 5), (A, 1))
def dict_of_run_time_ints(x: Tensor, n: int) -> int:
    d = {"s": 1, "t": 0}
    for i in range(n):
        d["t"] += d["s"] * i
    return d["t"]


@case((A,))
def keyword_arguments(x: Tensor) -> Tensor:
    return scaled(x, shift=2.0) + scaled(scale=3.0, x=x)


@case(
    (torch.tensor([3, 1, 2]),),
)
def tensor_to_list(x: Tensor) -> int:
    xs: List[int] = x.tolist()
    return xs[0] + xs[1]


@case((torch.ones(3),), (torch.ones(3) * -5,))
def list_from_a_while(x: Tensor) -> Tensor:
    vals: List[Tensor] = []
    y = x
    while float(y.abs().sum()) < 50.0:
        vals.append(y)
        y = y * 2
    if len(vals) == 0:
        return y
    return torch.stack(vals).sum(0)


@case((A, torch.tensor(2)), (A, torch.tensor(0)))
def run_time_slice(x: Tensor, n: Tensor) -> Tensor:
    return x[: int(n) + 1].sum(0)


@case((A,))
def script_class_with_operators(x: Tensor) -> Tensor:
    v = Vec(x, x * 2) + Vec.make(x)
    return v.dot()


@case((A, 3), (A, 0))
def objects_in_a_list(x: Tensor, n: int) -> Tensor:
    vs = [Vec(x, x), Vec(x * 2, x)]
    for i in range(n):
        vs[1].x = vs[1].x + i
    return vs[0].dot() + vs[1].dot()


@case((A,))
def union_refined(x: Tensor) -> Tensor:
    y: Union[int, Tensor] = 3
    if isinstance(y, int):
        return x * y
    return x


@case((A, 1), (-A, 2))
def run_time_index_in_a_branch(x: Tensor, i: int) -> Tensor:
    if float(x.sum()) > 0:
        y = x[i] * 2
    else:
        y = x[0]
    return y


@case((A, 1), (-A, 2))
def run_time_remainder_in_a_branch(x: Tensor, i: int) -> Tensor:
    if float(x.sum()) > 0:
        y = x[i % 3] * 2
    else:
        y = x[0]
    return y


@case((A, 1), (-A, 2))
def run_time_index_in_nested_branches(x: Tensor, i: int) -> Tensor:
    for k in range(i):
        if float(x.sum()) > 0:
            y = x[k % 3] * 2
            if float(y.sum()) < 4:
                z = y[k % 2] * 2
            else:
                z = y[k]
        else:
            z = x[0, 0]
        x = x * z
    return x


@case((A, 1), (B, 2))
def constants_written_through_views(x: Tensor, i: int) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    v = torch.tensor([1.0, -2.0, 3.0, 0.5])
    v[:] = 1.5
    w = torch.tensor([1.0, 2.0])
    u = w.view(2, 1)
    w.add_(1)
    z = torch.tensor([3.0, 4.0])
    z.reshape(2, 1)[0] = 7
    k = torch.tensor([2, 3])
    before = int(k[1])
    k[1] = 5
    return x + v, u * 2, z, x.repeat(before, int(k[1]))
