"""``torch-tvm doctor``: what is installed, what code is made for, what is missing and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from torch_tvm.support.cache_folder import cache_folder
from torch_tvm.support.errors import first_line

_PACKAGES = ("torch-tvm", "torch", "apache-tvm", "torch-mlir", "numpy", "lark")
_OPTIONAL = {
    "onnx": "torch-tvm reads .onnx files with it",
    "onnxruntime": "a peer of torch-tvm bench",
    "openvino": "a peer of torch-tvm bench",
    "matplotlib": "torch-tvm bench --plot",
    "pyopencl": "OpenCL devices",
}


@dataclass(frozen=True)
class Finding:
    """A line: ``state`` is ok, note (works, could be better) or bad; ``advice`` says what to do
    about the latter two.
    """

    topic: str
    state: str
    text: str
    advice: str = ""


def findings() -> Iterator[Finding]:
    """Each check, one after the other; one that fails in an unforeseen way is bad, and the rest goes on."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions, _target, _threads, _compiler, _page_watch, _gpu, _cache, _optional, _compile,
    )  # fmt: skip
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # a doctor does not fall ill
            text = first_line(error)
            yield Finding(
                check.__name__.strip("_").replace("_", " "),
                "bad",
                text,
                "reinstall: pip install --force-reinstall torch-tvm",
            )


def report() -> tuple[list[dict[str, str]], bool]:
    """The findings as dicts, and whether torch-tvm works."""
    found = list(findings())
    return [asdict(each) for each in found], all(each.state != "bad" for each in found)


def _versions() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in _PACKAGES:
        try:
            yield Finding(package, "ok", importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, "bad", "not installed", f"pip install {package}")


def _target() -> Iterator[Finding]:
    from torch_tvm.backends import backend_of
    from torch_tvm.targets import resolve_target

    target = resolve_target("auto")
    attributes = ", ".join(f"{key} {value}" for key, value in target.attrs.items() if key != "model")
    yield Finding("target", "ok", f"{target.kind.name}: {attributes}")
    features = sorted(backend_of(target).instruction_sets(target) or ())
    best = [f for f in features if f.startswith(("avx", "amx", "fma", "neon", "sve", "dotprod", "i8mm", "bf16"))]
    yield Finding("instructions", "ok", " ".join(best) or "no vector instructions")


def _threads() -> Iterator[Finding]:
    import torch

    from torch_tvm.runtime.threads import usable_cores

    cores, threads = len(usable_cores()), torch.get_num_threads()
    text = f"{threads} of PyTorch on {cores} usable cores"
    given = os.environ.get("OMP_NUM_THREADS")
    if threads > cores:
        yield Finding("threads", "note", text, f"more threads than cores: torch.set_num_threads({cores})")
    elif threads < cores:
        why = f"OMP_NUM_THREADS={given}" if given else "torch.set_num_threads or the machine's settings"
        yield Finding("threads", "note", text, f"{why} leaves cores idle, which may be what you want")
    else:
        yield Finding("threads", "ok", text)


def _compiler() -> Iterator[Finding]:
    from tvm.support import cc

    command = os.environ.get("CC") or cc.get_cc() or ""
    found = shutil.which(command.split()[0]) if command.split() else None
    if found:
        yield Finding("C compiler", "ok", found)
    else:
        advice = "save and export_library link with one: install gcc or clang, or name one in CC"
        yield Finding("C compiler", "note", f"none{f' ({command})' if command else ''}", advice)


def _page_watch() -> Iterator[Finding]:
    from torch_tvm.runtime.weights import page_watch

    if page_watch._this_process() is not None:
        yield Finding("page watch", "ok", "the kernel says which parameters were written")
    else:
        advice = (
            "torch.compile hashes parameters at each call; Linux 6.7 with userfaultfd allowed does it in microseconds"
        )
        yield Finding("page watch", "note", "not possible here", advice)


def _gpu() -> Iterator[Finding]:
    import tvm

    if tvm.cuda(0).exist:
        yield Finding("GPU", "ok", f"CUDA {tvm.cuda(0).compute_version}: {tvm.cuda(0).device_name}")
    else:
        yield Finding("GPU", "ok", 'none; target={"kind": "cuda", "arch": "sm_90"} makes code for one elsewhere')


def _cache() -> Iterator[Finding]:
    folder = cache_folder()
    if folder is None:
        yield Finding("cache", "note", "it is off", "unset TORCH_TVM_CACHE, and later processes compile less")
        return
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(existing, os.W_OK):
        yield Finding("cache", "ok", str(folder))
    else:
        yield Finding("cache", "note", f"'{folder}' cannot be written", "name a folder in TORCH_TVM_CACHE")


def _optional() -> Iterator[Finding]:
    for package, purpose in _OPTIONAL.items():
        try:
            yield Finding(package, "ok", importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, "note", "not installed", f"{purpose}: pip install {package}")


def _compile() -> Iterator[Finding]:
    import torch

    import torch_tvm

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()).eval()
    x = torch.randn(2, 8)
    with torch.no_grad():
        compiled = torch_tvm.compile(model, (x,))
        error = float((compiled(x) - model(x)).abs().max())
        seconds = sum(compiled.report.seconds.values())
        if error > 1e-5:
            yield Finding("a small model", "bad", f"differs from eager by {error:.2g}", "report it as a bug")
            return
        yield Finding("a small model", "ok", f"compiled in {seconds:.2f} s, agrees with eager")
        if shutil.which((os.environ.get("CC") or "cc").split()[0]):
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder) / "model.ttvm")
                compiled.save(path)
                loaded = torch_tvm.load(path)
                is_same = torch.equal(loaded(x), compiled(x))
            state, text = ("ok", "saved, loaded, the same") if is_same else ("bad", "a saved model differs")
            yield Finding("a saved model", state, text)


def printed(found: list[dict[str, str]]) -> str:
    """The findings as lines, with marks in colour on a terminal."""
    colours = {"ok": "\033[32m", "note": "\033[33m", "bad": "\033[31m"}
    width = max(len(each["topic"]) for each in found)
    lines = []
    for each in found:
        mark = each["state"].ljust(4)
        if sys.stdout.isatty():
            mark = f"{colours[each['state']]}{mark}\033[0m"
        lines.append(f"{mark}  {each['topic'].ljust(width)}  {each['text']}")
        if each["advice"]:
            lines.append(f"{'':4}  {'':{width}}  -> {each['advice']}")
    return "\n".join(lines)


__all__ = ["Finding", "findings", "printed", "report"]
