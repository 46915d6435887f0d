"""What views and hidden writes need of a recorder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from torch_tvm.dialect.emitter import Emitter
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recording.storages import Place, TensorRef, ViewStep


class Recording(Protocol):
    """:class:`~torch_tvm.importers.recording.recorder.Recorder`, as those see it whom it calls."""

    @property
    def emitter(self) -> Emitter: ...

    def read(self, ref: TensorRef) -> ir.Value: ...

    def value(self, place: Place) -> ir.Value: ...

    def write(self, ref: TensorRef, value: ir.Value) -> None: ...

    def call(
        self,
        overload: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        metas: Sequence[Any],
    ) -> list[Any]: ...

    def run(self, overload: torch._ops.OpOverload, *args: Any, **kwargs: Any) -> Any: ...

    def replayed(self, step: ViewStep, parent: ir.Value) -> tuple[tuple[Any, ...], dict[str, Any]]: ...

    def sizes(self, place: Place | TensorRef) -> list[Any]: ...
