"""A program for an OpenCL device, and the machine that runs it for one thread.

The program is Python text that launches kernels (``lib/codegen/opencl`` writes it) and the kernels as OpenCL C. Kernels
are compiled once for a device; each thread has a queue, kernel objects and memory of its own, weights are shared.
"""

from __future__ import annotations

import functools
import operator
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import tvm_ffi

from torch_tvm.runtime.calls.tensors import as_torch
from torch_tvm.runtime.opencl.devices import Device, device_named, opencl
from torch_tvm.runtime.opencl.memory import Array, Memory
from torch_tvm.support.errors import InternalError, InvalidInput
from torch_tvm.support.packed_functions import LOOP


class Program:
    """Code for a device: ``text`` defines the functions, ``sources`` are the kernels, ``constants`` what functions
    hold.

    ``wanted`` is the device, by name or index.
    """

    def __init__(self, text: str, sources: Mapping[str, str], constants: Sequence[torch.Tensor], wanted: str) -> None:
        self.text, self.sources, self.wanted = text, dict(sources), wanted
        self.constants = list(constants)
        self._lock = threading.Lock()

    @functools.cached_property
    def device(self) -> Device:
        return device_named(self.wanted)

    @functools.cached_property
    def _shared(self) -> tuple[Any, Memory, list[Array]]:
        """The compiled kernels, the memory that all threads read, and the constants in it."""
        cl = opencl()
        memory = Memory(self.device, cl.CommandQueue(self.device.context))
        return self._compiled(), memory, [memory.owned(value) for value in self.constants]

    def machine(self) -> Machine:
        """A machine that runs the program, for one Python thread; code and constants are shared."""
        with self._lock:
            code, memory, constants = self._shared
        return Machine(self, code, memory.device, constants)

    def resident(self, tensors: Sequence[torch.Tensor]) -> list[Array]:
        """Tensors on the device, for as long as someone holds them."""
        with self._lock:
            _, memory, _ = self._shared
            return [memory.owned(tensor) for tensor in tensors]

    def fetched(self, arrays: Sequence[Array]) -> list[torch.Tensor]:
        """Copies of tensors on the device."""
        with self._lock:
            _, memory, _ = self._shared
            return [memory.as_torch(array).clone() for array in arrays]

    def _compiled(self) -> Any:
        if not self.sources:
            return None
        self._check_dtypes()
        cl = opencl()
        options = ["-cl-std=CL1.2"]
        if self.device.handle.single_fp_config & cl.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT:
            options.append("-cl-fp32-correctly-rounded-divide-sqrt")
        text = "\n".join(self.sources.values())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", cl.CompilerWarning)
                return cl.Program(self.device.context, text).build(options, cache_dir=False)
        except cl.RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if "error" in line.lower()]
            raise InternalError(
                f"{self.device.name} does not compile a kernel: {lines[0] if lines else error}", stage="build"
            ) from error

    def _check_dtypes(self) -> None:
        for name, text in self.sources.items():
            for dtype, word in (("float64", "double"), ("float16", "half")):
                if self.device.lacks(dtype) and _has_word(text, word):
                    raise InvalidInput(
                        f"{self.device.name} does not compute in {dtype}, which '{name}' does",
                        subject="target",
                        advice="compile the program in float32, or for another device",
                    )


def _has_word(text: str, word: str) -> bool:
    kernel = text[text.find("__kernel") :]
    return any(f"{before}{word}{after}" in kernel for before in " (" for after in ("*", " ", "2 ", "4 ", "8 "))


class Machine:
    """Runs the functions of a program; one belongs to one thread. ``machine["main"]`` is one of them.

    Functions take tensors of PyTorch, or of the device, and return tensors of PyTorch, in a list where there are
    several.
    """

    def __init__(self, program: Program, code: Any, device: Device, constants: Sequence[Array]) -> None:
        self._cl = opencl()
        self._queue = self._cl.CommandQueue(device.context)
        self._kernels = {name: self._cl.Kernel(code, name) for name in program.sources}
        self.device = device
        self.memory = Memory(device, self._queue)
        self._names: dict[str, Any] = {
            **{name: getattr(np, name) for name in _NUMBERS},
            "bool": np.uint8,
            "constants": constants,
            "allocate": self.memory.allocate,
            "launch": self._launch,
            "foreign": self._foreign,
            "foreign_into": self._foreign_into,
            "truth": lambda value: bool(self._item(value)),
            "numbers": lambda value: self._on_host(value, lent=True).reshape(-1).tolist(),
            "match_cast": _match_cast,
            "match_rank": _match_rank,
            "truncated": lambda a, b: -(-a // b) if (a < 0) != (b < 0) else a // b,
            "remainder": lambda a, b: a - b * (-(-a // b) if (a < 0) != (b < 0) else a // b),
        }
        exec(compile(program.text, "<an OpenCL program>", "exec"), self._names)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        function = self._names[f"f_{name}"]

        def call(*args: Any) -> Any:
            result = function(*[self._on_device(arg) for arg in args])
            self.memory.finish()
            return [self._on_host(item) for item in result] if isinstance(result, list) else self._on_host(result)

        return call

    # -- what the text of a program calls ----------------------------------------------------------------

    def _launch(self, name: str, groups: tuple[int, int, int], items: tuple[int, int, int], *operands: Any) -> None:
        sizes = tuple(map(operator.mul, groups, items))
        if not all(sizes):
            return
        kernel = self._kernels[name]
        kernel.set_args(*[item.storage.buffer if isinstance(item, Array) else item for item in operands])
        try:
            self._cl.enqueue_nd_range_kernel(self._queue, kernel, sizes, items)
        except self._cl.Error as error:
            raise InternalError(
                f"{self.device.name} does not run '{name}' on {groups} groups of {items}: {error}",
                stage="runtime",
            ) from error

    def _foreign(self, name: str, *args: Any) -> Any:
        """A function of the host: tensors go there and its results come back."""
        if name == LOOP:
            return self._loop(*args)
        result = tvm_ffi.get_global_func(name)(*[self._on_host(arg, lent=True) for arg in args])
        if isinstance(result, (list, tuple, tvm_ffi.Array)):
            return [self._on_device(item, lists=False) for item in result]
        return self._on_device(result, lists=False)

    def _foreign_into(self, name: str, *args: Any) -> None:
        """A function of the host that writes its last argument."""
        *given, target = args
        values = [self._on_host(arg, lent=True) for arg in given]
        result = torch.empty(target.shape, dtype=target.dtype)
        tvm_ffi.get_global_func(name)(*values, result)
        self._cl.enqueue_copy(self._queue, target.storage.buffer, self.memory.borrowed(result).storage.buffer)
        self.memory.finish()

    def _loop(
        self,
        name: str,
        kind: str,
        limit: Any,
        condition: Any,
        carried: Sequence[Any],
        captured: Sequence[Any],
    ) -> list[Any]:
        """A loop whose end only the run shows: ``lib/runtime/loop.py`` on values of the device."""
        body, values = self._names[f"f_{name}"], list(carried)
        total, goes_on, done = self._item(limit), bool(self._item(condition)), 0
        while goes_on and done < total:
            goes_on, *values = body(self.memory.owned(torch.tensor(done)), *values, *captured)
            goes_on = kind == "endless" or bool(self._item(goes_on))
            done += 1
        return values

    # -- between host and device -------------------------------------------------------------------------

    def _on_device(self, value: Any, *, lists: bool = True) -> Any:
        if isinstance(value, tvm_ffi.Tensor):
            value = as_torch(value)
        if isinstance(value, torch.Tensor):
            return self.memory.borrowed(value)
        if lists and isinstance(value, (list, tuple, tvm_ffi.Array)):
            return [self._on_device(item) for item in value]
        return value

    def _on_host(self, value: Any, *, lent: bool = False) -> Any:
        """Tensors of PyTorch; their memory is their own, unless it is ``lent`` to what only reads it now."""
        if isinstance(value, Array):
            return self.memory.as_torch(value, lent=lent)
        if isinstance(value, list):
            return [self._on_host(item, lent=lent) for item in value]
        return value

    def _item(self, value: Any) -> Any:
        return self.memory.item(value) if isinstance(value, Array) else value


_NUMBERS = "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()


def _match_rank(shape: Sequence[int], rank: int) -> None:
    if len(shape) != rank:
        raise ValueError(f"match_cast: {len(shape)} dimensions, expected {rank}")


def _match_cast(shape: Sequence[int], *wanted: tuple[int, int]) -> None:
    for axis, size in wanted:
        if shape[axis] != size:
            raise ValueError(f"match_cast: dimension {axis} is {shape[axis]}, expected {size}")


__all__ = ["Machine", "Program"]
