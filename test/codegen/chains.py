"""Programs of ``n`` like steps, by kind: what a compiler that looks at pairs of steps, or inlines, takes too long for.

``python test/codegen/chains.py KIND STEPS`` compiles one and prints the seconds of processor time, the MiB that it took
at most and the largest difference from eager.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

import torch_tvm

Program = Callable[..., torch.Tensor]
Step = Callable[[torch.Tensor, int], torch.Tensor]
KINDS: dict[str, Callable[[int], tuple[Program, tuple[torch.Tensor, ...]]]] = {}


def _steps(name: str, shape: Sequence[int]) -> Callable[[Step], Step]:
    """Register a kind of program that does one step ``n`` times, on positive numbers."""

    def register(step: Step) -> Step:
        def make(n: int) -> tuple[Program, tuple[torch.Tensor, ...]]:
            def program(x: torch.Tensor) -> torch.Tensor:
                for turn in range(n):
                    x = step(x, turn)
                return x

            return program, (torch.rand(*shape, generator=torch.Generator().manual_seed(n)),)

        KINDS[name] = make
        return step

    return register


def _whole(name: str) -> Callable[[Callable[[int], tuple[Program, tuple[torch.Tensor, ...]]]], None]:
    def register(make: Callable[[int], tuple[Program, tuple[torch.Tensor, ...]]]) -> None:
        KINDS[name] = make

    return register


@_steps("roll", (64, 32))
def _roll(x: torch.Tensor, turn: int) -> torch.Tensor:
    return x * 0.5 + torch.roll(x, turn % 7 + 1, 0) * 0.5


@_steps("heat", (24, 40))
def _heat(x: torch.Tensor, turn: int) -> torch.Tensor:
    p = F.pad(x, (1, 1, 1, 1))
    return x + 0.1 * (p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * x)


@_steps("sine", (64, 32))
def _sine(x: torch.Tensor, turn: int) -> torch.Tensor:
    return torch.sin(x)


@_steps("diamond", (16, 32))
def _diamond(x: torch.Tensor, turn: int) -> torch.Tensor:
    return (x + torch.relu(x - 0.01 * (turn % 8)) * x) * 0.5


@_steps("choice", (16, 32))
def _choice(x: torch.Tensor, turn: int) -> torch.Tensor:
    return torch.where(x > 0.1 * (turn % 5), x * 0.9, x + 0.3)


@_steps("transpose", (32, 32))
def _transpose(x: torch.Tensor, turn: int) -> torch.Tensor:
    return x.t() * 0.5 + x * 0.4


@_steps("join", (16, 8))
def _join(x: torch.Tensor, turn: int) -> torch.Tensor:
    return torch.cat([x[1:], (x[:1] + x[-1:]) * 0.5])


@_steps("flip", (16, 16))
def _flip(x: torch.Tensor, turn: int) -> torch.Tensor:
    return x.flip(0) * 0.5 + x.flip(1) * 0.5


@_steps("mean", (16, 32))
def _mean(x: torch.Tensor, turn: int) -> torch.Tensor:
    return x - x.mean(0, keepdim=True) * 0.5 + 0.1


@_steps("softmax", (16, 32))
def _softmax(x: torch.Tensor, turn: int) -> torch.Tensor:
    return torch.softmax(x, -1) * 3


@_steps("pool", (1, 4, 16, 16))
def _pool(x: torch.Tensor, turn: int) -> torch.Tensor:
    return F.max_pool2d(x, 3, 1, 1) * 0.9 + F.avg_pool2d(x, 3, 1, 1) * 0.1


@_steps("windows", (64,))
def _windows(x: torch.Tensor, turn: int) -> torch.Tensor:
    return F.pad(x, (2, 2)).unfold(0, 5, 1).mean(1)


@_steps("write", (16, 32))
def _write(x: torch.Tensor, turn: int) -> torch.Tensor:
    y = x.clone()
    y[turn % 16] = x[(turn + 3) % 16] * 0.5 + x[turn % 16] * 0.5
    return y


@_whole("stack")
def _stack(n: int) -> tuple[Program, tuple[torch.Tensor, ...]]:
    program = lambda x: torch.stack([x[i] * 1.5 for i in range(n)])
    return program, (torch.rand(n, 4),)


@_whole("suppression")
def _suppression(n: int) -> tuple[Program, tuple[torch.Tensor, ...]]:
    """Non-maximum suppression in plain torch."""

    def program(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        x1, y1, x2, y2 = boxes[torch.argsort(scores, descending=True)].unbind(1)
        area = (x2 - x1) * (y2 - y1)
        keep = torch.ones(n, dtype=torch.bool)
        for i in range(n):
            width = (torch.minimum(x2[i], x2) - torch.maximum(x1[i], x1)).clamp(min=0)
            height = (torch.minimum(y2[i], y2) - torch.maximum(y1[i], y1)).clamp(min=0)
            overlap = width * height / (area[i] + area - width * height)
            keep = keep & ~((overlap > 0.5) & (torch.arange(n) > i) & keep[i])
        return keep

    boxes = torch.rand(n, 4)
    boxes[:, 2:] += boxes[:, :2]
    return program, (boxes, torch.rand(n))


class _Module(torch.nn.Module):
    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.program(*args)


def compiled(kind: str, n: int) -> float:
    """Compile ``n`` steps and compare a call with eager; the seconds of processor time from the imported module on."""
    torch.manual_seed(n)
    program, args = KINDS[kind](n)
    module = torch_tvm.import_fx(_Module(program), args)
    started = time.process_time()
    result = torch_tvm.compile(module)
    seconds = time.process_time() - started
    torch.testing.assert_close(result(*args), program(*args), rtol=1e-4, atol=1e-5)
    return seconds


def peak() -> float:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    compiled("roll", 2)
    before = peak()
    print(compiled(sys.argv[1], int(sys.argv[2])), peak() - before)
