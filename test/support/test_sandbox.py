"""Trying work in a child process: crashes and endless loops are told apart from ordinary ends."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from torch_tvm.support.sandbox import crash_of, failure_of


def test_work_that_ends_is_no_crash() -> None:
    assert crash_of(lambda: 3) is None


def test_an_exception_is_no_crash() -> None:
    assert crash_of(lambda: 1 // 0) is None


def test_an_exception_is_a_failure_with_its_text() -> None:
    assert failure_of(lambda: 3) is None
    assert failure_of(lambda: 1 // 0) == "integer division or modulo by zero"
    assert failure_of(os.abort) == "SIGABRT"


def test_a_signal_is_named() -> None:
    assert crash_of(lambda: os.kill(os.getpid(), signal.SIGSEGV)) == "SIGSEGV"
    assert crash_of(os.abort) == "SIGABRT"


def test_work_without_end_is_killed() -> None:
    start = time.monotonic()
    assert crash_of(lambda: time.sleep(600), seconds=0.2) == "it does not end"
    assert time.monotonic() - start < 30


def test_a_limit_of_memory() -> None:
    assert crash_of(lambda: bytearray(1 << 20), memory=1 << 28) is None
    assert crash_of(lambda: bytearray(1 << 30), memory=1 << 28) == "it takes too much memory"


def test_nothing_of_the_child_is_seen_here(capfd: pytest.CaptureFixture[str]) -> None:
    values: list[int] = []

    def work() -> None:
        values.append(1)
        os.write(1, b"out")
        os.write(2, b"err")

    assert crash_of(work) is None
    assert values == [] and capfd.readouterr() == ("", "")


def test_a_child_runs_parallel_loops() -> None:
    """Those of its parent ran already, so that OpenMP has threads there, and none in the child."""
    numbers = torch.ones(1 << 20)
    torch.set_num_threads(2)
    numbers.mul(2)
    assert crash_of(lambda: numbers.mul(2).sum(), seconds=20) is None
    assert torch.get_num_threads() == 2
