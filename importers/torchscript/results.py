"""The program's result: flattened into function results, its nesting kept for the caller."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.context import Context
from torch_tvm.importers.torchscript.values import (
    DictValue,
    FutureValue,
    ListValue,
    Maybe,
    ObjectValue,
    QuantizedValue,
    RuntimeText,
    Scalar,
    Stack,
    Uninitialized,
)
from torch_tvm.support.errors import ImportFailed


class Results:
    """``values`` are the function's results; ``outputs`` says per flat result where it comes from."""

    def __init__(self, ev: Context, outcome: Any) -> None:
        self.ev = ev
        plain = self._plain(outcome)
        leaves, self.spec = pytree.tree_flatten(plain, is_leaf=lambda x: x is None)
        self.values: list[ir.Value] = []
        self.outputs: list[tuple[Any] | None] = []
        for leaf in leaves:
            self._add(leaf)

    def _add(self, leaf: Any) -> None:
        if isinstance(leaf, TensorRef):
            self.values.append(self.ev.recorder.read(leaf))
        elif isinstance(leaf, Scalar):
            self.values.append(leaf.value)
        else:
            self.outputs.append((leaf,))
            return
        self.outputs.append(None)

    def _plain(self, value: Any) -> Any:
        """TorchScript values as Python containers with tensors and numbers as leaves."""
        if isinstance(value, ListValue):
            if isinstance(value.items, Stack):
                raise ImportFailed(
                    "the program returns a list whose length is only known at run time",
                    location=self.ev.location(),
                    stage="importer: torchscript",
                    advice="return torch.stack(...) of it",
                )
            return [self._plain(item) for item in value.items]
        if isinstance(value, DictValue):
            return {key: self._plain(item) for key, item in value.entries.items()}
        if isinstance(value, FutureValue):
            return self._plain(value.value)
        if isinstance(value, tuple):
            items = [self._plain(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        known = value is None or isinstance(value, (bool, int, float, str, torch.device, Enum))
        if isinstance(value, (TensorRef, Scalar)) or (known and not isinstance(value, RuntimeText)):
            return value
        raise self._refusal(value)

    def _refusal(self, value: Any) -> Exception:
        if isinstance(value, RuntimeText) and value.refusal is not None:
            return value.refusal
        what = "a value of this type"
        if isinstance(value, Maybe):
            what = "a value that is None on one run-time path"
        if isinstance(value, ObjectValue):
            what = f"an object of class {value.type.annotation_str.split('.')[-1]}"
        elif isinstance(value, QuantizedValue):
            what = "a quantised tensor"
        elif isinstance(value, RuntimeText):
            what = "text with run-time values in it"
        elif isinstance(value, Uninitialized):
            what = "nothing on this path"
        return ImportFailed(
            f"the program returns {what}",
            location=self.ev.location(),
            stage="importer: torchscript",
            advice="return tensors, numbers, and lists, tuples and dicts of them",
        )
