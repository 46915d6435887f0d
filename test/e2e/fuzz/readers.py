"""Random edits of files, read in a process of its own: ``python readers.py KIND COUNT SEED FOLDER``.

Prints one line for each edit whose reading ended in anything but a module or an error of ours, then ``done``. A
process that dies before that names the edit that killed it in its last line.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import torch_tvm
from torch_tvm.support.errors import TorchTvmError

KINDS = ("mlir", "mlirbc", "ts", "ltc", "pt")


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 6)
        self.register_buffer("steps", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        y = self.linear(x).relu()
        if bool(y.sum() > 0):
            y = y * self.steps.sum()
        return torch.cat([y, y.flip(1)], 1)[:, 1:7].softmax(1)


_TS = """graph(%x : Float(2, 3), %w : Float(3, 4)):
  %1 : int = prim::Constant[value=1]()
  %f : float = prim::Constant[value=0.5]()
  %y : Tensor = aten::mm(%x, %w)
  %s : int[] = prim::ListConstruct(%1, %1)
  %z : Tensor = aten::add(%y, %y, %1)
  %m : Tensor = aten::mul(%z, %f)
  return (%m)
"""


def original(kind: str, folder: Path) -> bytes:
    """A sound file of this kind."""
    path = folder / f"original.{kind}"
    if kind == "pt":
        torch.jit.script(Net()).save(str(path))
        return path.read_bytes()
    if kind == "ts":
        return _TS.encode()
    if kind == "ltc":
        return _dump().encode()
    torch_tvm.import_torchscript(torch.jit.script(Net()), (torch.randn(2, 4),)).save(path)
    return path.read_bytes()


def _dump() -> str:
    import torch._lazy
    import torch._lazy.ts_backend

    torch._lazy.ts_backend.init()
    x = torch.randn(2, 3).to("lazy")
    y = (x @ torch.randn(3, 4).to("lazy")).relu().sum(1)
    return torch._C._lazy._get_tensors_text([y])


def edited(data: bytes, rng: random.Random) -> bytes:
    """One to four edits: bytes changed, cut out, repeated, swapped, or the end cut off."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not damaged:
            break
        at, length = rng.randrange(len(damaged)), rng.randint(1, 12)
        edit = rng.randrange(7)
        if edit == 0:
            damaged[at] = rng.randrange(256)
        elif edit == 1:
            del damaged[at : at + length]
        elif edit == 2:
            damaged[at:at] = damaged[at : at + length]
        elif edit == 3:
            to = rng.randrange(len(damaged))
            damaged[at : at + length], damaged[to : to + length] = (
                damaged[to : to + length],
                damaged[at : at + length],
            )
        elif edit == 4:
            damaged[at:at] = rng.choice([b"0", b"-", b"(", b"]", b"99999999999999999999", b"%x", b'"', b"\xff\x00"])
        elif edit == 5:
            damaged[at] ^= 1 << rng.randrange(8)
        else:
            del damaged[at if rng.random() < 0.3 else len(damaged) - length :]
    return bytes(damaged)


def _reader(kind: str) -> Callable[[Path], object]:
    if kind == "pt":
        return lambda path: torch_tvm.import_torchscript(str(path), (torch.randn(2, 4),))
    return torch_tvm.parse


def main(kind: str, count: int, seed: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    rng, data, read = random.Random(seed), original(kind, folder), _reader(kind)
    path, inside = folder / f"damaged.{kind}", folder / "inside"
    inside.mkdir()
    os.chdir(inside)
    for index in range(count):
        path.write_bytes(edited(data, rng))
        print("reading", index, file=sys.stderr, flush=True)
        try:
            read(path)
        except TorchTvmError:
            pass
        except BaseException as error:
            print(f"{kind} seed {seed} edit {index}: {type(error).__name__}: {str(error)[:200]!r}", flush=True)
        made = os.listdir(inside)
        if made:
            print(f"{kind} seed {seed} edit {index}: made {made}", flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
