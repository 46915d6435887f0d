"""CPUs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

import tvm
from tvm import relax, tirx
from tvm.target import codegen

from torch_tvm.backends.backend import Backend, dict_of, parse_target
from torch_tvm.codegen.build import build_for_cpu
from torch_tvm.schedules.cpu.finish.kernel import finish
from torch_tvm.schedules.cpu.rules import RULES
from torch_tvm.schedules.rule import Rule
from torch_tvm.schedules.sizes import NamedSizes, name_sizes
from torch_tvm.schedules.target import CpuModel, describe, host_target
from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.sandbox import crash_of, failure_of
from torch_tvm.transforms.base import Transform
from torch_tvm.transforms.pipeline import cpu_passes

_INSTRUCTION_SETS = re.compile(
    r"(avx|sse|ssse|fma|f16c|bmi|lzcnt|popcnt|movbe|amx|gfni|xop|tbm|vaes|vpclmul"
    r"|neon|sve|fullfp16|dotprod|bf16|i8mm|fp-armv8|fp16fml|lse|rdm|crypto)"
)


class Cpu(Backend):
    """Every processor that LLVM generates code for, described by :class:`CpuModel`."""

    kind = "llvm"
    checks_indices: ClassVar[bool] = True

    def complete(self, options: Mapping[str, Any]) -> tvm.target.Target:
        if set(options) <= {"kind"}:
            return host_target()
        return self.checked(parse_target(described(options)))

    def checked(self, target: tvm.target.Target) -> tvm.target.Target:
        """LLVM takes another processor for one that it does not know, and ends the process for an unknown family.

        A feature that it does not have it leaves out, with a line on stderr for every kernel.
        """
        cpu, triple = target.attrs.get("mcpu"), str(target.attrs.get("mtriple", ""))
        family = tvm.target.Target({"kind": "llvm", **({"mtriple": triple} if triple else {})})
        if triple and crash_of(lambda: codegen.llvm_get_cpu_archlist(family)):
            raise InvalidInput(
                f"LLVM has no processors of the family '{triple}'",
                subject="target['mtriple']",
                advice=f"known: {', '.join(map(str, codegen.llvm_get_targets()))}, as in 'aarch64-linux-gnu'",
            )
        known = sorted(str(name) for name in codegen.llvm_get_cpu_archlist(family))
        if cpu is not None and cpu not in known:
            raise InvalidInput(
                f"LLVM has no processor '{cpu}'" + (f" in the family '{triple}'" if triple else ""),
                subject="target['mcpu']",
                advice=f"known: {', '.join(get_close_matches(str(cpu), known, 10, 0.3) or known)}",
            )
        if cpu is not None and cpu != host_target().attrs["mcpu"]:
            crash = crash_of(lambda: tvm.tirx.build(tvm.IRModule({}), target))  # 32 bits, of a family of 64
            if crash:
                raise InvalidInput(
                    f"LLVM makes no code for '{cpu}' in the family of "
                    f"'{triple or host_target().attrs['mtriple']}': {crash}",
                    subject="target['mcpu']",
                    advice="name a processor of that family that has as many bits",
                )
        wrong = failure_of(lambda: _check_features(target, triple)) if target.attrs.get("mattr") else None
        if wrong is not None:
            raise InvalidInput(wrong, subject="target['mattr']", advice='write "+avx2" or "-avx2", for one')
        CpuModel.from_target(target)  # refuses a description that it cannot read
        return target

    def why_not_runnable(self, target: tvm.target.Target) -> str:
        host = host_target()
        wanted, own = (str(t.attrs.get("mtriple", "")).split("-")[0] for t in (target, host))
        if wanted and wanted != own:
            return f"the code is for {wanted}, the machine is {own}"
        missing = self.instruction_sets(target) - self.instruction_sets(host)
        return f"its CPU lacks {', '.join(sorted(missing)[:5])}" if missing else ""

    def instruction_sets(self, target: tvm.target.Target) -> frozenset[str]:
        """LLVM lists its tuning hints among the features; they are none."""
        names = map(str, codegen.llvm_get_cpu_features(target))
        return frozenset(name for name in names if _INSTRUCTION_SETS.match(name))

    def why_not_measurable(self, target: tvm.target.Target) -> str:
        return self.why_not_runnable(target)

    def graph_passes(self, target: tvm.target.Target, accuracy: str) -> Sequence[Transform]:
        return cpu_passes(accuracy)

    def rules(self) -> Sequence[Rule]:
        return RULES

    def machine(self, target: tvm.target.Target) -> CpuModel:
        return CpuModel.from_target(target)

    def prepare(self, func: tirx.PrimFunc) -> NamedSizes:
        return name_sizes(func)

    def finish(self, func: tirx.PrimFunc, machine: CpuModel) -> tirx.PrimFunc:
        return finish(func, machine)

    def build(self, mod: tvm.IRModule, target: tvm.target.Target, *, is_native: bool = True) -> relax.VMExecutable:
        return build_for_cpu(mod, target, is_native=is_native)


def described(options: Mapping[str, Any]) -> dict[str, Any]:
    """A dict of an LLVM target in TVM's words: those of :class:`CpuModel` become its ``model``.

    Where it names the processor of this machine, what it leaves out of caches and cores is that of this machine.
    """
    words = {field.name.replace("_", "-") for field in dataclasses.fields(CpuModel)}
    said = {name: value for name, value in options.items() if name in words}
    plain = {name: value for name, value in options.items() if name not in words}
    model = [str(plain.get("model", "")), describe(said)]
    own = dict_of(host_target())
    if plain.get("mcpu") == own["mcpu"] and _family(plain, own) == _family(own, own):
        plain.setdefault("num-cores", own["num-cores"])
        model.insert(0, str(own.get("model", "")))
    text = " ".join(filter(None, model))
    return {**plain, "model": text} if text else plain


def _family(options: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    return str(options.get("mtriple", own["mtriple"])).split("-")[0]


def _check_features(target: tvm.target.Target, triple: str) -> None:
    """Raise for a feature that LLVM does not have."""
    family = {"kind": "llvm", **({"mtriple": triple} if triple else {})}
    for each in map(str, target.attrs["mattr"]):
        name = each[1:]
        known = codegen.llvm_get_cpu_features(tvm.target.Target({**family, "mattr": ["+" + name]}))
        if each[:1] not in ("+", "-") or name not in map(str, known):
            raise ValueError(f"LLVM has no feature '{each}'" + (f" in the family '{triple}'" if triple else ""))


BACKEND = Cpu()
