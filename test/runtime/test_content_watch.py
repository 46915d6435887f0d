"""Writes to memory are noticed, whoever makes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from torch_tvm.codegen.memory_hash import MemoryHash
from torch_tvm.runtime.weights import page_watch
from torch_tvm.runtime.weights.content_watch import ContentWatch


def by_data(tensor: torch.Tensor, place: int) -> None:
    tensor.data[place] += 1


def by_numpy(tensor: torch.Tensor, place: int) -> None:
    tensor.numpy()[place] += 1


def of_one_bit(tensor: torch.Tensor, place: int) -> None:
    storage = tensor.untyped_storage()
    storage[4 * place + 3] = storage[4 * place + 3] ^ 0x80


def of_all_signs(tensor: torch.Tensor, place: int) -> None:
    tensor.data.neg_()


@pytest.fixture(params=["pages", "hashes"])
def tensors(request: Any, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Less than a page to many pages; on a machine that watches no pages, hashes twice."""
    if request.param == "hashes":
        monkeypatch.setattr(page_watch, "_is_possible", False)
    return [torch.randn(size) for size in (1, 10, 1000, 5001, 300_000)]


@pytest.mark.parametrize("write", [by_data, by_numpy, of_one_bit, of_all_signs])
def test_a_write_at_any_place_is_noticed(tensors: list[torch.Tensor], write: Callable[..., None]) -> None:
    for tensor in tensors:
        for place in (0, tensor.numel() // 2, tensor.numel() - 1):
            watch = ContentWatch(tensors, MemoryHash)
            assert watch.is_unchanged(tensors) and watch.is_unchanged(tensors)
            write(tensor, place)
            assert not watch.is_unchanged(tensors)


@pytest.mark.parametrize("write", [by_data, by_numpy, of_one_bit, of_all_signs])
def test_it_says_which_changed(tensors: list[torch.Tensor], write: Callable[..., None]) -> None:
    both = [*tensors, tensors[3]]
    for index, tensor in enumerate(tensors):
        watch = ContentWatch(both, MemoryHash)
        assert watch.changed(both) == []
        write(tensor, tensor.numel() // 2)
        again = ContentWatch(both, MemoryHash)  # what is protected anew was counted before
        expected = [3, 5] if index == 3 else [index]
        assert set(expected) <= set(watch.changed(both)) <= {*expected, *range(index)}
        assert again.changed(both) == []
        both[index] = tensor.clone()
        assert index in again.changed(both)
        both[index] = tensor


def test_all_who_watch_a_page_notice(tensors: list[torch.Tensor]) -> None:
    big = tensors[-1]
    everything = [tensors, [big], [big[5000:100_000]], [big[50_000:].view(500, 500).t()]]
    watches = [ContentWatch(some, MemoryHash) for some in everything]
    watches = [ContentWatch(some, MemoryHash) for some in everything]
    for _ in range(2):
        assert all(w.is_unchanged(some) for w, some in zip(watches, everything, strict=True))
    big.data[60_000] = 3
    assert not any(w.is_unchanged(some) for w, some in zip(watches, everything, strict=True))


def test_other_memory_is_a_change(tensors: list[torch.Tensor]) -> None:
    watch = ContentWatch(tensors, MemoryHash)
    assert not watch.is_unchanged([*tensors[:-1], tensors[-1].clone()])


def test_a_forked_process_watches_for_itself(tensors: list[torch.Tensor]) -> None:
    watch = ContentWatch(tensors, MemoryHash)
    child = os.fork()
    if not child:
        own = ContentWatch(tensors, MemoryHash)
        first = own.is_unchanged(tensors)
        tensors[-1][7] += 1
        os._exit(0 if first and not own.is_unchanged(tensors) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert watch.is_unchanged(tensors)


def test_memory_of_other_processes_is_hashed() -> None:
    shared = torch.zeros(100_000).share_memory_()
    watch = ContentWatch([shared], MemoryHash)
    child = os.fork()
    if not child:
        shared[50_000] = 1
        os._exit(0)
    os.waitpid(child, 0)
    assert not watch.is_unchanged([shared])
