"""A library for another family of processors runs there: an emulator, and TVM's runtime for that family from PyPI."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_tvm

CROSS, EMULATOR = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "deploy"
VERSIONS = ["apache-tvm==0.27.0", "apache-tvm-ffi"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not (CROSS and EMULATOR), reason="needs Debian's gcc-aarch64-linux-gnu and qemu-user-static"),
]


def run(*command: str | Path, folder: Path, data: bytes = b"") -> bytes:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, input=data, capture_output=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TVM's runtime and headers for AArch64."""
    folder = tmp_path_factory.mktemp("aarch64")
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (24, 27, 28)]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    run(
        *pip,
        *platforms,
        f"--python-version=3.{sys.version_info.minor}",
        *VERSIONS,
        "-d",
        folder,
        folder=folder,
    )
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder


def test_a_network_on_aarch64(runtime: Path, tmp_path: Path) -> None:
    features = [
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
    ]
    model = nn.Sequential(*features, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10)).eval()
    images = torch.randn(50, 1, 8, 8)
    target = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "neoverse-n1"}
    torch_tvm.compile(model, (images[:1],)).export_library(tmp_path / "digits.so", target=target, linker=CROSS)
    shutil.copy(EXAMPLE / "run.c", tmp_path)
    libraries = [runtime / "tvm" / "lib", runtime / "tvm_ffi" / "lib"]
    link = [f"-L{folder}" for folder in libraries]
    link += ["-Wl,--no-as-needed", "-ltvm_runtime", "-ltvm_ffi", "-Wl,--allow-shlib-undefined"]
    include = ["-I.", f"-I{runtime / 'tvm_ffi' / 'include'}"]
    run(str(CROSS), "run.c", *include, "-o", "run", *link, folder=tmp_path)
    paths = ":".join(map(str, libraries))
    emulated = [str(EMULATOR), "-L", "/usr/aarch64-linux-gnu", "-E", f"LD_LIBRARY_PATH={paths}", "./run"]
    printed = run(*emulated, "./digits.so", "digits.params", folder=tmp_path, data=images.numpy().tobytes())
    with torch.no_grad():
        assert list(map(int, printed.split())) == model(images).argmax(1).tolist()
