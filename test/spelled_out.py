"""Instructions that few processors have, spelled out in others, so that their kernels run on any."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tvm

from torch_tvm.schedules.cpu.matmul import packed_dot_product as words
from torch_tvm.schedules.target import CpuModel, host_target


def spell_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's target with ``vdpbf16ps`` and ``vpdpbusd``, as shifts, products and sums of its own vectors."""
    host = host_target()
    lanes = CpuModel.from_target(host).lanes("float32")
    read = CpuModel.from_target.__func__

    def from_target(cls: type[CpuModel], target: tvm.target.Target) -> CpuModel:
        cpu = read(cls, target)
        is_host = target.attrs.get("mcpu") == host.attrs.get("mcpu")
        return replace(cpu, has_bf16=True, has_vnni=True) if is_host else cpu

    monkeypatch.setattr(CpuModel, "from_target", classmethod(from_target))
    definitions = {words.PAIR: _pairs(lanes), words.GROUP: _bytes(lanes)}
    monkeypatch.setattr(words, "_DEFINITION", definitions)


def _splat(value: int, lanes: int) -> str:
    return "<" + ", ".join([f"i32 {value}"] * lanes) + ">"


def _function(name: str, kind: str, lanes: int, lines: list[str], result: str) -> str:
    """A function of a sum of ``kind`` and two vectors of words."""
    words_type, sum_type = f"<{lanes} x i32>", f"<{lanes} x {kind}>"
    head = f"define linkonce_odr {sum_type} @{name}({sum_type} %sum, {words_type} %a, {words_type} %b) alwaysinline {{"
    return "\n".join([head, *(f"  {line}" for line in lines), f"  ret {sum_type} {result}", "}", ""])


def _pairs(lanes: int) -> str:
    ints, floats = f"<{lanes} x i32>", f"<{lanes} x float>"
    lines, total = [], "%sum"
    for part in ("low", "high"):
        for side in "ab":
            change = f"shl {ints} %{side}, {_splat(16, lanes)}"
            change = change if part == "low" else f"and {ints} %{side}, {_splat(-65536, lanes)}"
            lines.append(f"%{side}.{part} = {change}")
            lines.append(f"%{side}.{part}.f = bitcast {ints} %{side}.{part} to {floats}")
        lines.append(f"%{part} = fmul {floats} %a.{part}.f, %b.{part}.f")
        lines.append(f"%sum.{part} = fadd {floats} {total}, %{part}")
        total = f"%sum.{part}"
    return _function(words._NAME[words.PAIR], "float", lanes, lines, total)


def _bytes(lanes: int) -> str:
    ints = f"<{lanes} x i32>"
    lines, total = [], "%sum"
    for byte in range(4):
        for side, shift in (("a", "lshr"), ("b", "ashr")):
            lines.append(f"%{side}{byte}.up = shl {ints} %{side}, {_splat(24 - 8 * byte, lanes)}")
            lines.append(f"%{side}{byte} = {shift} {ints} %{side}{byte}.up, {_splat(24, lanes)}")
        lines.append(f"%p{byte} = mul {ints} %a{byte}, %b{byte}")
        lines.append(f"%s{byte} = add {ints} {total}, %p{byte}")
        total = f"%s{byte}"
    return _function(words._NAME[words.GROUP], "i32", lanes, lines, total)
