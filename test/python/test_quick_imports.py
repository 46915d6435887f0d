"""What an import and a compile leave out: devices that nobody uses, and collections that find nothing."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

from torch_tvm.support.garbage import rare_collections

_OURS_FIRST = """
import torch, torch_tvm
x = torch.randn(3, 4)
assert torch.equal(torch_tvm.compile(lambda x: x.relu(), (x,))(x), x.relu())
import tvm
from tvm.backend.loader import is_loaded
assert not is_loaded("cuda") and tvm.runtime.disco is not None
assert tvm.get_global_func("tvm.contrib.sort.sort", allow_missing=True) is not None
tvm.target.Target({"kind": "llvm"})
assert not is_loaded("cuda")
assert str(tvm.target.Target("nvidia/nvidia-a100").kind.name) == "cuda"
assert is_loaded("cuda") and is_loaded("metal") and tvm.get_global_func("tvm_callback_cuda_compile")
"""

_TVM_FIRST = """
import torch_tvm, tvm
from tvm.backend.loader import is_loaded
assert is_loaded("cuda") and is_loaded("webgpu")
init = tvm.target.Target.__init__
import torch_tvm.driver.compiler
assert tvm.target.Target.__init__ is init
"""

_ALONE = """
import sys
before = set(sys.modules)
import torch_tvm
slow = {"importlib.abc", "importlib.resources", "tempfile", "pathlib", "inspect", "dataclasses", "torch", "tvm"}
assert not slow & (set(sys.modules) - before)
"""


def test_an_import_alone_is_cheap() -> None:
    """Classes to inherit from are in ``importlib.abc``, which imports half of the standard library."""
    done = subprocess.run([sys.executable, "-c", _ALONE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


def test_devices_are_registered_when_one_is_used() -> None:
    for program in (_OURS_FIRST, _TVM_FIRST):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]


def test_collections_are_as_before_once_the_last_context_ends() -> None:
    before = gc.get_threshold()
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with rare_collections():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=work)
    with rare_collections():
        thread.start()
        inside.wait()
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold()[0] > before[0]
    leave.set()
    thread.join()
    assert gc.get_threshold() == before
    gc.set_threshold(0)
    try:
        with rare_collections():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
