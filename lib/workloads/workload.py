"""What all workloads share, and the marks of kernels that have nothing more to say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

W = TypeVar("W", bound="Workload")

POINTWISE = "torch_tvm.pointwise"
"""The kernel computes each element of its result from the elements at the same place of its operands."""

RESHAPE = "torch_tvm.reshape"
"""The kernel copies its operand as it lies, into another shape."""


@dataclass(frozen=True)
class Workload:
    """A description that lies as JSON under :attr:`ATTRIBUTE` on a kernel, or on one of its blocks."""

    ATTRIBUTE: ClassVar[str]

    def to_attr(self) -> dict[str, str]:
        return {self.ATTRIBUTE: json.dumps(asdict(self))}

    @classmethod
    def from_attr(cls: type[W], attrs: Mapping[str, Any] | None) -> W | None:
        """What attributes (or a block's annotations) hold, None where they hold no such workload."""
        if not attrs or cls.ATTRIBUTE not in attrs:
            return None
        return cls(**{name: _frozen(value) for name, value in json.loads(str(attrs[cls.ATTRIBUTE])).items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
