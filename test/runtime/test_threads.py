"""Threads of kernels: how many, whose they are, and what they cost while nobody calls."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch
import tvm

from torch_tvm.codegen.openmp import use_openmp
from torch_tvm.runtime import threads
from torch_tvm.runtime.threads import configure_threads, usable_cores


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    configure_threads()


def workers() -> int:
    """How many threads a parallel loop runs on."""
    openmp = use_openmp()
    return openmp.count() if openmp else tvm.get_global_func("runtime.NumThreads")()


def test_the_pool_takes_all_usable_cores(monkeypatch: pytest.MonkeyPatch, torch_threads: None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_physical_cores", lambda: 1)
    torch.set_num_threads(1)
    assert configure_threads() == len(usable_cores()) == workers()


def test_set_num_threads_is_honoured(monkeypatch: pytest.MonkeyPatch, torch_threads: None) -> None:
    monkeypatch.setattr(threads, "_physical_cores", lambda: len(usable_cores()))
    torch.set_num_threads(1)
    assert configure_threads() == 1 == workers()
    torch.set_num_threads(len(usable_cores()))
    assert configure_threads() == len(usable_cores()) == workers()


def test_each_thread_has_threads_of_its_own() -> None:
    seen = []
    thread = threading.Thread(target=lambda: seen.append((configure_threads(), workers())))
    thread.start()
    thread.join()
    assert seen == [(configure_threads(), workers())]


_ALTERNATING = """
import os, torch, torch_tvm
from torch import nn
x = torch.randn(512, 1024)
with torch.no_grad():
    program = {program}
    for _ in range(20):
        program(torch.exp(x))
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(use_openmp() is None, reason="this torch has no OpenMP")
def test_kernels_run_on_the_threads_of_torch() -> None:
    """A compiled program between eager ops starts no threads of its own."""
    counts = []
    for program in ("nn.Softmax(-1)", "torch_tvm.compile(nn.Softmax(-1), (x,))"):
        code = _ALTERNATING.replace("{program}", program)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        counts.append(int(done.stdout.splitlines()[-1]))
    assert counts[0] == counts[1]


_IDLE = """
import sys, time, torch, torch_tvm
from torch import nn
module = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512)).eval()
x = torch.randn(128, 512)
with torch.no_grad():
    compiled = torch_tvm.compile(module, (x,))
    for _ in range(5):
        compiled(x)
before = time.process_time()
time.sleep(0.3)
print(time.process_time() - before)
"""


def test_idle_workers_sleep() -> None:
    """With TVM's default the workers burn 77 ms of CPU after the last call, here below 20 ms."""
    done = subprocess.run([sys.executable, "-c", _IDLE], capture_output=True, text=True, check=True)
    assert float(done.stdout.splitlines()[-1]) < 0.02


_FORKS = """
import os, torch, torch_tvm
module, x = torch.nn.Linear(256, 256).requires_grad_(False), torch.randn(512, 256)
compiled = torch_tvm.compile(module, (x,))
before = compiled(x)
child = os.fork()
if not child:
    os._exit(0 if (compiled(x).numpy() == before.numpy()).all() else 1)  # torch.equal itself waits for threads
print(os.waitpid(child, 0)[1], torch.equal(compiled(x), before))
"""


def test_a_forked_process_does_not_wait_for_threads_that_it_has_not() -> None:
    done = subprocess.run([sys.executable, "-c", _FORKS], capture_output=True, text=True, timeout=200)
    assert done.stdout == "0 True\n", done.stdout + done.stderr
