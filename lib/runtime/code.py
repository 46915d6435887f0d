"""``Code``: what was compiled, without its weights and its state."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm_ffi

from torch_tvm.runtime import aten, loop
from torch_tvm.runtime.calls import failures
from torch_tvm.runtime.calls.convention import Convention
from torch_tvm.runtime.calls.tensors import array_item
from torch_tvm.runtime.library import DeviceProgram, Machine, VirtualMachine


@dataclass(frozen=True)
class Code:
    """The compiled code, shared by every copy and every thread.

    ``device`` is PyTorch's name of where tensors are. ``copies`` are results of ``main`` that are cloned before the
    user gets them, ``single`` says that ``main`` returns one tensor and no tuple, ``loops`` names its loop bodies and
    ``keeps_iteration`` those among them that may return their iteration number. ``lifted`` says that the work on
    weights is a function of its own and ``main`` takes what that gave as one tuple; ``program`` is that work where
    PyTorch does it. ``has_unknown_sizes`` says that a kernel may find sizes that do not fit. ``obstacle`` says why this
    machine cannot run the code; there is no ``library`` then.
    """

    library: tvm_ffi.Module | DeviceProgram | None
    convention: Convention
    device: str = "cpu"
    copies: frozenset[int] = frozenset()
    single: bool = False
    loops: frozenset[str] = frozenset()
    keeps_iteration: frozenset[str] = frozenset()
    lifted: bool = True
    program: str = ""
    has_unknown_sizes: bool = False
    obstacle: str = ""

    def new_vm(self, *, by_kernel: bool = False) -> Machine:
        """A virtual machine over the shared code, of one thread, which calls all kernels itself if ``by_kernel``."""
        for part in (aten, loop, failures):
            part.register()
        assert self.library is not None, self.obstacle
        if isinstance(self.library, DeviceProgram):
            return self.library.machine()
        return VirtualMachine(self.library, self.device, by_kernel=by_kernel)

    @property
    def item(self) -> Callable[[Any, int], Any]:
        """How to take a result out of several."""
        return operator.getitem if isinstance(self.library, DeviceProgram) else array_item


__all__ = ["Code"]
