"""How each runtime makes a function of a model: ``prepare(module, args, options) -> call``.

``call()`` runs the model once on the inputs it was prepared with and returns its flat results. All of it happens
in the runtime's own process, with ``Options.threads`` threads and float32 arithmetic.
"""

from __future__ import annotations

import importlib.util
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.tools.bench import training
from torch_tvm.tools.bench.options import Call, Options

Prepare = Callable[[torch.nn.Module, tuple[Any, ...], Options], Call]


@dataclass(frozen=True)
class Runtime:
    """``label`` heads the table's column; ``packages`` are the import names that it needs, with their pip names."""

    name: str
    label: str
    prepare: Prepare
    packages: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Packages of it that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]


def _ours(module: torch.nn.Module, args: tuple[Any, ...], options: Options) -> Call:
    import torch_tvm

    with warnings.catch_warnings():
        warnings.simplefilter("error", torch_tvm.FallbackWarning)
        compiled = torch_tvm.compile(module, args, options={"accuracy": options.accuracy}, fallback=False)
    return lambda: compiled(*args)


def _eager(module: torch.nn.Module, args: tuple[Any, ...], options: Options) -> Call:
    return lambda: module(*args)


def _inductor(module: torch.nn.Module, args: tuple[Any, ...], options: Options) -> Call:
    from torch._inductor import config

    config.freezing = True
    compiled = torch.compile(module)
    return lambda: compiled(*args)


def _onnxruntime(module: torch.nn.Module, args: tuple[Any, ...], options: Options) -> Call:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(module, args, Path(folder))
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    feeds = {slot.name: tensor.numpy() for slot, tensor in zip(session.get_inputs(), args, strict=True)}
    return lambda: session.run(None, feeds)


def _openvino(module: torch.nn.Module, args: tuple[Any, ...], options: Options) -> Call:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(module, args, Path(folder))
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(str(path)),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": options.threads,
            },
        )
    request = compiled.create_infer_request()
    feeds = {index: tensor.numpy() for index, tensor in enumerate(args)}
    outputs = compiled.outputs

    def call() -> Any:
        result = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [result[output] for output in outputs]

    return call


def _tvm(module: torch.nn.Module, args: tuple[Any, ...], options: Options) -> Call:
    """TVM's own front end and its default pipeline."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend.torch import from_exported_program

    mod = from_exported_program(torch.export.export(module, args), keep_params_as_input=True)
    mod, weights = relax.frontend.detach_params(mod)
    target = tvm.target.Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()})
    executable = tvm.compile(mod, target)
    machine = relax.VirtualMachine(executable, tvm.cpu())
    operands = [tvm.runtime.from_dlpack(tensor) for tensor in args] + list(weights["main"])
    return lambda: machine["main"](*operands)


def export_onnx(module: torch.nn.Module, args: tuple[Any, ...], folder: Path) -> Path:
    """The ONNX file of a module: by ``torch.export``, or by TorchScript where that fails."""
    path = folder / "model.onnx"
    silent = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(silent), redirect_stderr(silent):
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(module, args, str(path), dynamo=True)
        except Exception as exported:
            try:
                torch.onnx.export(module, args, str(path), dynamo=False)
            except Exception as scripted:
                raise RuntimeError(f"no ONNX export: {_first_line(exported)}; {_first_line(scripted)}") from exported
    return path


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("ours", "torch-tvm", _ours),
        Runtime("eager", "eager", _eager),
        Runtime("inductor", "Inductor", _inductor),
        Runtime("onnxruntime", "ONNX Runtime", _onnxruntime, ("onnxruntime", "onnx", "onnxscript")),
        Runtime("openvino", "OpenVINO", _openvino, ("openvino", "onnx", "onnxscript")),
        Runtime("tvm", "TVM", _tvm),
    )
}


def flat_results(value: Any) -> list[torch.Tensor]:
    """What a call returned, as torch tensors in order."""
    if not isinstance(value, torch.Tensor | tuple | list | dict):
        value = [value[index] for index in range(len(value))] if hasattr(value, "__len__") else [value]
    return [
        leaf if isinstance(leaf, torch.Tensor) else torch.as_tensor(_as_array(leaf))
        for leaf in pytree.tree_leaves(value)
    ]


def _as_array(leaf: Any) -> Any:
    return leaf.numpy() if hasattr(leaf, "numpy") else leaf


def environment(threads: int, folder: str) -> dict[str, str]:
    """Variables that a runtime's process starts with; ``folder`` takes what compilers would keep."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TVM_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, "inductor"),
    }


def prepare(name: str, module: torch.nn.Module, args: Sequence[Any], options: Options) -> Call:
    """The function of a model in the runtime ``name``, or a step of its training."""
    if options.training:
        return training.step(name, module, tuple(args), options)
    return RUNTIMES[name].prepare(module, tuple(args), options)


__all__ = ["RUNTIMES", "Runtime", "environment", "export_onnx", "flat_results", "prepare"]
