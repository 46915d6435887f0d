"""From what users call a target to a TVM target."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

import tvm
from tvm.target import codegen

from torch_tvm.quick_imports import register_devices
from torch_tvm.schedules.target import host_target
from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.sandbox import crash_of


def resolve_target(target: Any) -> tvm.target.Target:
    """``"auto"`` and ``"llvm"`` are this host, ``"cuda"`` its GPU; or a dict, a TVM target, its JSON.

    Raises :class:`InvalidInput` for anything else, and for CUDA without a GPU and without an ``arch``.
    """
    if isinstance(target, tvm.target.Target):
        return _known_to_llvm(target)
    if target in ("auto", "llvm"):
        return host_target()
    if target == "cuda":
        return _cuda({"kind": "cuda"})
    if isinstance(target, dict):
        if target.get("kind") == "cuda":
            return _cuda(target)
        if target.get("kind") == "llvm" and set(target) == {"kind"}:
            return host_target()
        return _parse(target)
    if isinstance(target, str) and target.lstrip().startswith("{"):
        return _parse(target)
    raise InvalidInput(
        f"unknown target {target!r}",
        subject="target",
        advice='use "auto", "llvm", "cuda", a dict like {"kind": "llvm", "mcpu": "znver4"} or a tvm Target',
    )


def _cuda(options: dict[str, Any]) -> tvm.target.Target:
    register_devices()
    device = tvm.cuda(0)
    if "arch" not in options:
        if not device.exist:
            raise InvalidInput(
                "there is no GPU to read the architecture from",
                subject="target",
                advice='give it: target={"kind": "cuda", "arch": "sm_90"}',
            )
        options = {**options, "arch": f"sm_{device.compute_version.replace('.', '')}"}
    if isinstance(options["arch"], str) and not re.fullmatch(r"sm_\d+[af]?", options["arch"]):
        raise InvalidInput(
            f"{options['arch']!r} is no architecture",
            subject="target['arch']",
            advice='write "sm_90", for one',
        )
    defaults = {"max_threads_per_block": 1024, "max_shared_memory_per_block": 49152, "thread_warp_size": 32}
    return _parse({**defaults, **options, "host": dict_of(host_target())})


def why_not_runnable(target: tvm.target.Target) -> str:
    """Why code for the target cannot run on this machine, ``""`` when it can."""
    if target.kind.name == "cuda":
        return "" if tvm.cuda(0).exist else "it has no NVIDIA GPU"
    if target.kind.name != "llvm":
        return f"it has no {target.kind.name} device"
    host = host_target()
    wanted, own = (str(t.attrs.get("mtriple", "")).split("-")[0] for t in (target, host))
    if wanted and wanted != own:
        return f"the code is for {wanted}, the machine is {own}"
    missing = _instructions(target) - _instructions(host)
    return f"its CPU lacks {', '.join(sorted(missing)[:5])}" if missing else ""


_INSTRUCTION_SETS = re.compile(
    r"(avx|sse|ssse|fma|f16c|bmi|lzcnt|popcnt|movbe|amx|gfni|xop|tbm|vaes|vpclmul"
    r"|neon|sve|fullfp16|dotprod|bf16|i8mm|fp-armv8|fp16fml|lse|rdm|crypto)"
)


def _instructions(target: tvm.target.Target) -> set[str]:
    """The features that compiled code may use; LLVM lists its tuning hints among them."""
    return {str(name) for name in codegen.llvm_get_cpu_features(target) if _INSTRUCTION_SETS.match(str(name))}


def dict_of(target: tvm.target.Target) -> dict[str, Any]:
    """A target as the dict that makes it again."""
    return {"kind": str(target.kind.name), **{str(key): value for key, value in target.attrs.items()}}


def _parse(target: Any) -> tvm.target.Target:
    try:
        parsed = tvm.target.Target(target)
    except Exception as error:
        raise InvalidInput(
            f"TVM does not take it: {error}",
            subject="target",
            advice='give it a kind and what TVM knows of that: {"kind": "llvm", "mcpu": "znver4"}',
        ) from error
    return _known_to_llvm(parsed)


def _known_to_llvm(target: tvm.target.Target) -> tvm.target.Target:
    """Refuse a processor that LLVM does not have: it takes another one, and ends the process for an unknown family."""
    if target.kind.name != "llvm":
        return target
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
    return target


__all__ = ["resolve_target", "why_not_runnable"]
