"""Libraries that plain TVM runs: from Python, C++ and C, without PyTorch and without this package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from artifact.saved_programs import Counter, Halving, Spectrum
from torch import nn

import torch_tvm
from torch_tvm import InvalidInput
from torch_tvm.artifact.header import c_header

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "deploy"


def digits() -> nn.Module:
    features = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(256, 10)).eval()


def ran(*command: str | Path, **options: Any) -> bytes:
    done = subprocess.run([str(part) for part in command], capture_output=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout


@pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake and a C++ compiler")
def test_cpp_and_c_programs(tmp_path: Path) -> None:
    model, images = digits(), torch.randn(20, 1, 8, 8)
    torch_tvm.compile(model, (images[:1],)).export_library(tmp_path / "digits.so")
    for file in EXAMPLE.iterdir():
        shutil.copy(file, tmp_path)
    ran("cmake", "-S", ".", "-B", "build", f"-DPython_EXECUTABLE={sys.executable}", cwd=tmp_path)
    ran("cmake", "--build", "build", cwd=tmp_path)
    with torch.no_grad():
        expected = model(images).argmax(1).tolist()
    for program in ("run_cpp", "run_c"):
        printed = ran(f"build/{program}", "./digits.so", "digits.params", input=images.numpy().tobytes(), cwd=tmp_path)
        assert list(map(int, printed.split())) == expected
    missing = subprocess.run(["build/run_c", "./none.so", "none"], cwd=tmp_path, capture_output=True, check=False)
    assert missing.returncode == 1 and b"cannot load: " in missing.stderr


_PLAIN = """
import sys, numpy, tvm
from tvm import relax
folder, name = sys.argv[1:]
vm = relax.VirtualMachine(tvm.runtime.load_module(f"{folder}/{name}.so"), tvm.cpu())
named = tvm.runtime.load_param_dict_from_file(f"{folder}/{name}.params")
weights = [named[key] for key in sorted(named)]
given = [tvm.runtime.tensor(array) for array in numpy.load(f"{folder}/{name}.npz").values()]
result = vm["main"](*given, *([weights] if weights else []))
results = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
numpy.savez(f"{folder}/{name}.out.npz", *[each.numpy() for each in results])
assert "torch_tvm" not in sys.modules
"""


@pytest.mark.parametrize(
    ("name", "model", "args"),
    [
        ("lstm", nn.LSTM(4, 5).eval(), (torch.randn(3, 2, 4),)),
        ("add", torch.add, (torch.randn(3), torch.randn(3))),
        ("pick", lambda x, i: x[i], (torch.randn(5, 2), torch.tensor([4, 0]))),
    ],
)
def test_plain_tvm_in_python(name: str, model: Any, args: Any, tmp_path: Path) -> None:
    import numpy

    torch_tvm.compile(model, args).export_library(tmp_path / f"{name}.so")
    numpy.savez(tmp_path / f"{name}.npz", *[tensor.numpy() for tensor in args])
    # TVM imports PyTorch where there is one, and PyTorch what extends it: see autoload.py.
    ran(sys.executable, "-c", _PLAIN, tmp_path, name, env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"})
    with torch.no_grad():
        expected, _ = torch.utils._pytree.tree_flatten(model(*args))
    with numpy.load(tmp_path / f"{name}.out.npz") as results:
        for found, wanted in zip(results.values(), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(found), wanted)


def test_a_header_of_several_results_compiles_as_c_and_cpp(tmp_path: Path) -> None:
    import tvm_ffi

    compiled = torch_tvm.compile(nn.LSTM(4, 5).eval(), (torch.randn(3, 2, 4),))
    text = c_header("two-part.name", compiled.parts().code, 3)
    assert "(input: float32[3, 2, 4]) -> (float32, float32, float32)" in text and "@" not in text
    (tmp_path / "model.h").write_text(text)
    (tmp_path / "model.c").write_text(
        '#include "model.h"\nint main(void) { return sizeof(two_part_name_model) == 0; }\n'
    )
    includes = [
        f"-I{folder}" for folder in {tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path()}
    ]
    for language in (["-x", "c", "-std=c11"], ["-x", "c++", "-std=c++17"]):
        ran(
            "cc",
            *language,
            "-Wall",
            "-Werror",
            "-Wno-unused-function",
            *includes,
            "-fsyntax-only",
            "model.c",
            cwd=tmp_path,
        )


@pytest.mark.parametrize(
    ("model", "args", "why"),
    [
        (Counter(), (torch.randn(3),), "changes its arguments or its state"),
        (torch.jit.script(Halving()), (torch.randn(4),), "loops until a value ends"),
        (Spectrum(), (torch.randn(8, 8),), r"ops that run in PyTorch \(torch.aten.linalg_matrix_exp\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::torch_tvm.FallbackWarning")
def test_programs_that_need_python(model: Any, args: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=why):
        torch_tvm.compile(model, args).export_library(tmp_path / "model.so")
    assert not list(tmp_path.iterdir())


def test_a_library_ends_in_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"ends in \.so"):
        torch_tvm.compile(nn.ReLU(), (torch.ones(2),)).export_library(tmp_path / "model.dll")


_READELF = shutil.which("readelf")


@pytest.mark.skipif(not _READELF, reason="needs readelf")
def test_code_for_another_processor_is_linked_by_its_compiler(tmp_path: Path) -> None:
    """Without a cross compiler the objects are there and the linker of this machine refuses them."""
    compiled = torch_tvm.compile(nn.Linear(8, 4), (torch.randn(2, 8),))
    target = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "neoverse-n1"}
    with pytest.raises(InvalidInput, match="cannot link the code"):
        compiled.export_library(tmp_path / "model.so", target=target, linker="cc")
    cross = shutil.which("aarch64-linux-gnu-gcc")
    if cross:
        compiled.export_library(tmp_path / "model.so", target=target, linker=cross)
        assert b"AArch64" in ran(str(_READELF), "-h", tmp_path / "model.so")
