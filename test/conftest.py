"""Shared by all tests: the seed of random inputs, and golden text that ``pytest --update-golden`` writes anew."""

from __future__ import annotations

import difflib
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torch_tvm.support.cache_folder import VARIABLE

SEED = "TORCH_TVM_SEED"


def pytest_configure() -> None:
    """One seed for all processes of a run: 0, unless the environment has another. No code is kept."""
    os.environ.setdefault(SEED, "0")
    os.environ[VARIABLE] = "off"


def pytest_collectstart(collector: pytest.Collector) -> None:
    """What a file draws as it is imported does not depend on the files before it."""
    if isinstance(collector, pytest.Module):
        _draw_as(collector.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test draws does not depend on the tests before it."""
    _draw_as(item.nodeid)


def _draw_as(name: str) -> None:
    seed = int(os.environ[SEED]) * 1_000_003 + zlib.crc32(name.encode())
    torch.manual_seed(seed)
    random.seed(seed)


def pytest_report_header() -> str:
    return f"random inputs: {SEED}={os.environ[SEED]}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"random inputs were those of {SEED}={os.environ[SEED]}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Compare text with ``golden/<test name>.txt`` beside the test file; ``--update-golden`` writes it."""
    path = Path(request.path).parent / "golden" / f"{request.node.name}.txt"
    updates = request.config.getoption("--update-golden")

    def check(text: str) -> None:
        if updates:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            return
        if not path.exists():
            pytest.fail(f"{path} does not exist; write it with pytest --update-golden and read it")
        expected = path.read_text()
        if text != expected:
            lines = difflib.unified_diff(expected.splitlines(), text.splitlines(), "golden", "now", lineterm="")
            pytest.fail("\n".join(["golden text differs (pytest --update-golden accepts it):", *lines]))

    return check
