"""Instructions that few processors have, spelled out in others, so that their kernels run on any."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tvm

from torch_tvm.schedules.target import FEATURES, CpuModel, host_target


def spell_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's target with every instruction there is, in the portable form on its own vectors."""
    host = host_target()
    read = vars(CpuModel)["from_target"].__func__

    def from_target(cls: type[CpuModel], target: tvm.target.Target) -> CpuModel:
        cpu = read(cls, target)
        is_host = target.attrs.get("mcpu") == host.attrs.get("mcpu")
        return replace(cpu, features=FEATURES, portable=True) if is_host else cpu

    monkeypatch.setattr(CpuModel, "from_target", classmethod(from_target))
