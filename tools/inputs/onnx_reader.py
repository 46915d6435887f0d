"""A module from an ONNX file, by torch-mlir's importer and its conversion to Torch ops."""

from __future__ import annotations

import io
import re
from typing import Any

from torch_tvm.dialect.mlir import PassManager, ir, new_context, onnx_importer
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.support.errors import ImportFailed, InvalidInput
from torch_tvm.support.files import read_bytes
from torch_tvm.support.sandbox import crash_of

_CONVERSION = "builtin.module(func.func(convert-torch-onnx-to-torch),canonicalize,cse)"
_STAGE = "importer: onnx"


def read_onnx(path: str) -> TorchModule:
    """The canonical module of an ONNX file; :class:`ImportFailed` where it is none, or has ops that nobody converts.

    It is converted in a child process first: what torch-mlir is not prepared for ends the process.
    """
    try:
        import onnx
    except ImportError:
        raise InvalidInput("the package 'onnx' is not installed", subject=path, advice="pip install onnx") from None
    read_bytes(path)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # protobuf and ONNX have errors of their own
        raise _refused(path, error) from None
    crash = crash_of(lambda: _converted(model, path))
    if crash is not None:
        raise ImportFailed(f"torch-mlir cannot convert it ({crash})", subject=path, stage=_STAGE, advice=_ADVICE)
    return canonicalize(_converted(model, path))


_ADVICE = "save the program with torch.export.save, which has all that PyTorch's program says"


def _converted(model: Any, path: str) -> TorchModule:
    context = new_context()
    importer = onnx_importer()
    try:
        info = importer.ModelInfo(model)
        operation = info.create_module(context=context).operation
        importer.NodeImporter.define_function(info.main_graph, operation).import_all()
        with context:
            PassManager.parse(_CONVERSION).run(operation)
    except Exception as error:  # the importer's own, and MLIR's
        raise _unconverted(path, error) or _refused(path, error) from None
    left = sorted({name for name in _operators(operation) if name.startswith("onnx.")})
    if left:
        raise ImportFailed(
            f"torch-mlir has no conversion of {', '.join(left[:5])}",
            subject=path,
            stage=_STAGE,
            advice=_ADVICE,
        )
    bytecode = io.BytesIO()
    operation.write_bytecode(bytecode)
    return TorchModule.read(bytecode.getvalue(), path, needs_state=False)


def _operators(operation: ir.Operation) -> list[str]:
    """Names of ops that are none of the dialect's."""
    found: list[str] = []

    def note(op: ir.Operation) -> ir.WalkResult:
        if op.name == "torch.operator":
            found.append(str(op.attributes["name"].value))
        return ir.WalkResult.ADVANCE

    operation.walk(note)
    return found


def _unconverted(path: str, error: Exception) -> ImportFailed | None:
    """What torch-mlir says of an operator that it cannot convert, where it says that of one."""
    found = re.search(r'(?:"([^"]*)": )?failed to legalize .*?name = "(onnx\.\w+)"', str(error))
    if found is None:
        return None
    node, operator = found.groups()
    where = f" at node '{node}'" if node else ""
    return ImportFailed(
        f"torch-mlir cannot convert {operator}{where} with what the file says of its operands",
        subject=path,
        stage=_STAGE,
        advice=f"export it with fixed sizes, without dynamic axes; or {_ADVICE}",
    )


def _refused(path: str, error: Exception) -> ImportFailed:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    problem = lines[0][:300] if lines else type(error).__name__
    return ImportFailed(f"not an ONNX model that can be read: {problem}", subject=path, stage=_STAGE, advice=_ADVICE)


__all__ = ["read_onnx"]
