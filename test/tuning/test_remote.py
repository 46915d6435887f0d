"""Tuning by the servers of a TVM RPC tracker: two of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import torch_tvm
from torch_tvm.support.errors import InvalidInput
from torch_tvm.tuning.remote import RemoteTimer, servers

pytest.importorskip("tornado", reason="TVM's tracker is written with it")


@pytest.fixture(scope="module")
def tracker() -> Iterator[str]:
    from tvm import rpc
    from tvm.rpc.tracker import Tracker

    found = Tracker("127.0.0.1", port=19190, port_end=19290, silent=True)
    address = ("127.0.0.1", found.port)
    workers = [
        rpc.Server("127.0.0.1", port=19300, port_end=19400, tracker_addr=address, key="here", silent=True)
        for _ in range(2)
    ]
    yield f"127.0.0.1:{found.port}"
    for worker in workers:
        worker.terminate()
    found.terminate()


def test_two_servers_measure(tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = torch.nn.Linear(24, 32).eval(), torch.randn(9, 24)
    timers = set()
    measure = RemoteTimer.measure

    def noted(self, libraries, operands, rounds):
        timers.add(id(self))
        return measure(self, libraries, operands, rounds)

    monkeypatch.setattr(RemoteTimer, "measure", noted)
    tuning = torch_tvm.tune(model, (x,), database=tmp_path, trials=10, tracker=f"{tracker}/here")
    (task,) = tuning.tasks
    assert tuning.trials == 10 and len(timers) == 2
    assert sum(ratio is not None for ratio in task.record.tried.values()) >= 6
    compiled = torch_tvm.compile(model, (x,), options={"database": tmp_path})
    torch.testing.assert_close(compiled(x), model(x))


def test_a_kernel_that_a_server_does_not_load(tracker: str) -> None:
    with servers(f"{tracker}/here") as timers:
        found = timers[0].measure({"own": b"no library"}, [([2], "float32")], 1)
    assert found["own"].error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{tracker}/other", "has no server of 'other'"),
        ("127.0.0.1:1/here", "there is no tracker at 127.0.0.1:1"),
        ("here", "expected host:port/key, got 'here'"),
    ],
)
def test_no_such_server(text: str, message: str, tracker: str) -> None:
    with pytest.raises(InvalidInput, match=message), servers(text.format(tracker=tracker)):
        pass
