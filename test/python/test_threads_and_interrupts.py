"""Several threads compile at once; Ctrl-C stops a compile and leaves everything usable."""

from __future__ import annotations

import subprocess
import sys

import pytest

_THREADS = """
import faulthandler, threading, torch, torch_tvm
faulthandler.dump_traceback_later(400, exit=True)
errors = []

def work(number):
    try:
        for turn in range(2):
            model = torch.nn.Sequential(torch.nn.Linear(8, 8 + number), torch.nn.GELU()).eval().requires_grad_(False)
            x = torch.randn(4, 8)
            way = ("fx", "torchscript", "lazy", "dynamo")[(number + turn) % 4]
            if way == "dynamo":
                compiled = torch.compile(model, backend="torch_tvm")
            else:
                compiled = torch_tvm.compile(model, (x,), frontend=way)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    except BaseException as error:
        errors.append((number, turn, repr(error)))

threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(errors)
"""

_INTERRUPT = """
import os, signal, sys, threading, time, torch, torch._dynamo
when, way = sys.argv[1:]
model = torch.nn.Sequential(*[m for i in range(6) for m in (torch.nn.Linear(16, 16), torch.nn.GELU())])
model.eval().requires_grad_(False)
x = torch.randn(4, 16)

def go():
    import torch_tvm
    if way == "dynamo":
        torch._dynamo.reset()
        return torch.compile(model, backend="torch_tvm")(x)
    return torch_tvm.compile(model, (x,), frontend=way)(x)

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class AtImport:
    def find_spec(self, name, path, target=None):
        if name == when:
            sys.meta_path.remove(self)
            interrupt()

ended = "done"
try:
    if when[0].isdigit():
        threading.Timer(float(when), interrupt).start()
    else:
        sys.meta_path.insert(0, AtImport())
    go()
    time.sleep(60)
except KeyboardInterrupt:
    ended = "KeyboardInterrupt"
except BaseException as error:
    ended = repr(error)
torch.testing.assert_close(go(), model(x), rtol=1e-4, atol=1e-5)
print(ended)
"""


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)


def test_threads_that_compile() -> None:
    done = _run(_THREADS)
    assert done.stdout == "[]\n", done.stdout + done.stderr[-3000:]


@pytest.mark.parametrize(
    ("when", "way"), [("tvm.runtime.vm", "fx"), ("tvm.runtime.vm", "dynamo"), ("2.5", "torchscript")]
)
def test_an_interrupt(when: str, way: str) -> None:
    """``when`` is a number of seconds, or the module whose import is interrupted."""
    done = _run(_INTERRUPT, when, way)
    assert done.stdout == "KeyboardInterrupt\n", done.stdout + done.stderr[-3000:]
    assert not done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("way", ["fx", "torchscript", "lazy", "dynamo"])
@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0])
def test_many_interrupts(seconds: float, way: str) -> None:
    done = _run(_INTERRUPT, str(seconds), way)
    assert done.stdout == "KeyboardInterrupt\n", done.stdout + done.stderr[-3000:]
