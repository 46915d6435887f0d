"""``torch_tvm.compile``: imports neither TVM nor MLIR until it has to compile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch_tvm.caching.module_cache import module_entry
from torch_tvm.options import Options
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.support.first_import import first_import


def compile(
    program: Any,
    example_args: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
    *,
    frontend: str = "auto",
    target: Any = "auto",
    dynamic_shapes: Any = None,
    fallback: bool = True,
    options: Mapping[str, Any] | None = None,
) -> CompiledModule:
    """Compile a PyTorch program.

    ``program`` is an ``nn.Module``, a function of tensors, a ``GraphModule``, ``ExportedProgram``, scripted module or
    function, the path of a saved ``.pt`` file, or a :class:`TorchModule`. ``frontend`` is ``"auto"``, ``"fx"``,
    ``"torchscript"`` or ``"lazy"``. ``target`` is ``"auto"``, ``"llvm"``, ``"cuda"``, a dict or a TVM target.
    With ``fallback=False`` an op that cannot be compiled is an :class:`UnsupportedOp`; otherwise it runs in
    PyTorch and one warning says so. Weights are snapshots. Raises :class:`ImportFailed` and
    :class:`InvalidInput` as well.

    The other methods of a scripted module are attributes of the result, ``compiled.encode(x)``, and share its weights
    and state. Each is compiled on its first call, for arguments of those types, or at once for the arguments that
    ``example_args={"forward": (x,), "encode": (x,)}`` gives it.

    Code is kept on disk for the next process that compiles the same program (``options={"cache": False}`` does not).
    With ``options={"cache_key": "resnet50-v3"}`` the whole compiled module is, under that name: a later call with the
    same name, arguments of the same types, target and options does not look at the program at all.

    >>> import torch, torch_tvm
    >>> compiled = torch_tvm.compile(torch.nn.ReLU(), (torch.tensor([-1.0, 2.0]),))
    >>> compiled(torch.tensor([3.0, -4.0]))
    tensor([3., 0.])
    """
    parsed = Options.parse(options)
    of_key = (example_args, frontend, target, dynamic_shapes, fallback)
    entry = module_entry(parsed, *of_key) if parsed.cache_key else None
    cached = entry.find() if entry else None
    if cached is not None:
        return cached
    compile_anew = first_import("torch_tvm.driver.compiler").compile_anew
    compiled: CompiledModule = compile_anew(program, example_args, frontend, target, dynamic_shapes, fallback, parsed)
    if entry is not None:
        entry.keep(compiled)
    return compiled


__all__ = ["compile"]
