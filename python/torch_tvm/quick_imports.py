"""An import of TVM without what a CPU does not need: a third of the time, where a package of ours is the first to
import it.

TVM registers what every kind of device needs, and asks for things that are not there by catching the error: for the
first error of a process it reads the debug information of all libraries. Devices are registered here when the first
target that is no CPU is made, by whomever.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:
    Loader = MetaPathFinder = object  # to import these classes takes longer than this whole package

_DEVICES = "tvm.backend._autoload_backends"
_DONE = "_AUTO_LOAD_DONE"
_DISTRIBUTED = "tvm.runtime.disco"
_lock = threading.RLock()


class _TvmFinder(MetaPathFinder):
    """Steps in where ``tvm`` imports the two modules; finds nothing itself."""

    is_needed = True

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "tvm":
            self.is_needed = _is_importing_ours()
        elif fullname == _DISTRIBUTED and self.is_needed:
            _load_extra_runtime()
        elif fullname == _DEVICES and self.is_needed:
            sys.meta_path.remove(self)
            spec = importlib.machinery.PathFinder.find_spec(fullname, path)
            if spec is not None and spec.loader is not None:
                spec.loader = _LaterLoader(spec.loader)
            return spec
        return None


class _LaterLoader(Loader):
    """Loads TVM's module that registers devices, and says that it is done."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        if hasattr(module, _DONE):
            setattr(module, _DONE, True)
            _watch_targets(module)


def _is_importing_ours() -> bool:
    """Whether the module that imports TVM is one of this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and not name.startswith("importlib"):
            return name.startswith("torch_tvm.")
        frame = frame.f_back
    return False


def _load_extra_runtime() -> None:
    """What TVM would load last, before it asks for classes that are in it; sorting on a CPU is in it too."""
    from tvm import base, libinfo

    try:
        base._LOADED_LIBS["tvm_runtime_extra"] = base.load_lib_ctypes(
            "tvm", "tvm_runtime_extra", "RTLD_LOCAL", extra_lib_paths=libinfo.package_lib_paths()
        )
    except (OSError, RuntimeError):
        pass  # this build has none


def _watch_targets(devices: ModuleType) -> None:
    """Register devices before the first target is made that is no CPU."""
    from tvm.target import Target

    made = Target.__init__

    @functools.wraps(made)
    def make(self: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        if not all(map(_is_cpu, (target, *args, *kwargs.values()))):
            register_devices()
        made(self, target, *args, **kwargs)

    Target.__init__ = make  # type: ignore[method-assign]


def _is_cpu(target: Any) -> bool:
    if isinstance(target, dict):
        return not target.get("tag") and _is_cpu(target.get("kind")) and _is_cpu(target.get("host"))
    kind = getattr(getattr(target, "kind", None), "name", target)
    return kind is None or (isinstance(kind, str) and kind in ("llvm", "c"))


@functools.cache
def register_devices() -> None:
    """TVM with all its devices, as ``import tvm`` gives it."""
    with _lock:
        devices = importlib.import_module(_DEVICES)
        if devices.__spec__ is not None and isinstance(devices.__spec__.loader, _LaterLoader):
            setattr(devices, _DONE, False)
            devices._autoload_backends()


def install() -> None:
    """For the first import of TVM; after it there is nothing to do."""
    if "tvm" not in sys.modules and not any(isinstance(finder, _TvmFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TvmFinder())


__all__ = ["install", "register_devices"]
