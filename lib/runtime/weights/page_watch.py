"""Which pages of this process's memory were written, by anyone: the kernel notes it.

Linux 6.7 and later write-protect pages for us and lift that by themselves at the first write (``userfaultfd`` in its
asynchronous mode); ``PAGEMAP_SCAN`` says whether it was lifted. So no write can be missed, whether an op, a view, a
NumPy array or foreign code made it; asking takes 1 microsecond for a megabyte, the first write to a page 1 more.
Where the kernel is older or a container forbids it, :func:`watch_pages` watches nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
import sys
import threading
import weakref
from collections.abc import Sequence

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SYSCALL = {"x86_64": 323, "aarch64": 282}
_USER_MODE_ONLY = 1
_UNPOPULATED, _ASYNCHRONOUS = 1 << 13, 1 << 15
_CHECK_WATCHED, _PROTECT = 2, 1
_WRITTEN = 2
_REGISTER_WRITES = 2


def _ioctl_number(kind: int, number: int, size: int) -> int:
    """The request that reads and writes an argument of ``size`` bytes: Linux's ``_IOWR``."""
    return 3 << 30 | size << 16 | kind << 8 | number


_API = _ioctl_number(0xAA, 0x3F, 24)
_REGISTER = _ioctl_number(0xAA, 0x00, 32)
_SCAN = _ioctl_number(ord("f"), 16, 96)


class Pages:
    """Whole pages from ``start`` to ``end``; ``writes`` grows when a write to one of them is noticed."""

    def __init__(self, watcher: _Watcher, start: int, end: int) -> None:
        self.start, self.end, self.writes = start, end, 0
        self._watcher = watcher
        self.question = watcher.scan_arguments(start, end, _CHECK_WATCHED)

    def were_written(self, since: int) -> bool:
        """Whether a write came after ``writes`` had been ``since``."""
        watcher = self._watcher
        try:
            if fcntl.ioctl(watcher.pagemap, _SCAN, self.question):
                watcher.note(self)
        except (
            OSError,
            ValueError,
        ):  # other memory lies there now, or the process is a fork of the watcher's
            return True
        return self.writes != since


class _Watcher:
    """The kernel's interface in this process: one, since pages have one protection that all who ask share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: weakref.WeakValueDictionary[tuple[int, int], Pages] = weakref.WeakValueDictionary()
        self._found = (ctypes.c_uint64 * 3)()
        self.faults = self._open()
        self.pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def _open(self) -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        faults = libc.syscall(_SYSCALL[platform.machine()], os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY)
        if faults < 0:
            raise OSError(ctypes.get_errno(), "userfaultfd")
        fcntl.ioctl(faults, _API, bytearray(struct.pack("QQQ", 0xAA, _UNPOPULATED | _ASYNCHRONOUS, 0)))
        return faults

    def scan_arguments(self, start: int, end: int, flags: int) -> bytearray:
        """A question for the first written range from ``start`` to ``end``."""
        found = ctypes.addressof(self._found)
        return bytearray(struct.pack("12Q", 96, flags, start, end, 0, found, 1, 1, 0, _WRITTEN, 0, _WRITTEN))

    def watch(self, start: int, end: int) -> Pages:
        """The pages ``[start, end)``, writes to which are noted from now on."""
        with self._lock:
            pages = self._pages.get((start, end))
            if pages is None:
                fcntl.ioctl(
                    self.faults,
                    _REGISTER,
                    bytearray(struct.pack("QQQQ", start, end - start, _REGISTER_WRITES, 0)),
                )
                pages = self._pages[start, end] = Pages(self, start, end)
            self._protect(pages)
        return pages

    def note(self, pages: Pages) -> None:
        """Count a write to the pages, for all who watch one of them, and protect them again."""
        with self._lock:
            self._protect(pages)

    def forget(self) -> None:
        """In a forked process: its memory is not watched, what the descriptors tell is about its parent."""
        os.close(self.faults)
        os.close(self.pagemap)
        self.pagemap = -1

    def _protect(self, pages: Pages) -> None:
        """Protect what is not; every change of that is counted first, since the protection hides it."""
        if not fcntl.ioctl(self.pagemap, _SCAN, pages.question):
            return
        for other in list(self._pages.values()):
            if other.start < pages.end and pages.start < other.end:
                other.writes += 1
        place = pages.start
        while place < pages.end:
            question = bytearray(
                struct.pack("12Q", 96, _PROTECT | _CHECK_WATCHED, place, pages.end, 0, 0, 0, 0, 0, _WRITTEN, 0, 0)
            )
            fcntl.ioctl(self.pagemap, _SCAN, question)
            (reached,) = struct.unpack_from("Q", question, 32)
            if reached <= place:
                raise OSError("the kernel protects no pages")
            place = reached


_watcher: _Watcher | None = None
_is_possible = sys.platform == "linux" and platform.machine() in _SYSCALL
_start_lock = threading.Lock()


def _this_process() -> _Watcher | None:
    """The watcher, started on first use."""
    global _watcher, _is_possible
    with _start_lock:
        if _is_possible and _watcher is None:
            try:
                _watcher = _Watcher()
            except (OSError, AttributeError):
                _is_possible = False
        return _watcher if _is_possible else None


def _forget() -> None:
    """A forked process starts a watcher of its own."""
    global _watcher, _start_lock
    _start_lock = threading.Lock()
    if _watcher is not None:
        _watcher.forget()
        _watcher = None


os.register_at_fork(after_in_child=_forget)


Range = tuple[int, int]
"""``(address, bytes)``."""


def watch_pages(ranges: Sequence[Range]) -> tuple[list[tuple[int, Pages]], list[tuple[int, Range]]]:
    """Watch the whole pages inside the ranges; also returns the ranges that are left over. Both with the position among
    ``ranges`` that they are of.

    Only private memory without a file behind it is watched: other processes write the rest unseen.
    """
    watcher = _this_process()
    private = _private_memory() if watcher else []
    watched, left = [], []
    for position, (address, size) in enumerate(ranges):
        start, end = -(-address // _PAGE) * _PAGE, (address + size) // _PAGE * _PAGE
        try:
            if watcher is None or end - start < 2 * _PAGE or not _is_inside(start, end, private):
                raise OSError("not worth it")
            watched.append((position, watcher.watch(start, end)))
            rest = [(address, start - address), (end, address + size - end)]
        except OSError:
            rest = [(address, size)]
        left += [(position, part) for part in rest if part[1]]
    return watched, left


def _private_memory() -> list[tuple[int, int]]:
    """Addresses of private anonymous memory, neighbours joined."""
    found: list[tuple[int, int]] = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            addresses, permissions, _offset, _device, inode = line.split()[:5]
            if permissions[3] != "p" or inode != "0":
                continue
            start, end = (int(part, 16) for part in addresses.split("-"))
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
    return found


def _is_inside(start: int, end: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(first <= start and end <= last for first, last in ranges)


__all__ = ["Pages", "Range", "watch_pages"]
