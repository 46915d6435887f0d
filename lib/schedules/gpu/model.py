"""What a GPU rule knows of the target: one description for all kinds of GPUs."""

from __future__ import annotations

from dataclasses import dataclass

import tvm


@dataclass(frozen=True)
class GpuModel:
    """One GPU.

    ``threads`` are the most that a block may have, ``shared`` the bytes of shared memory of a block, ``registers`` the
    32-bit registers that a thread should not exceed, ``vector_bytes`` what one load takes, ``blocks`` how many blocks
    keep the whole GPU busy.
    """

    target: tvm.target.Target
    threads: int = 256
    shared: int = 32 << 10
    registers: int = 128
    vector_bytes: int = 16
    blocks: int = 128

    @classmethod
    def from_target(cls, target: tvm.target.Target) -> GpuModel:
        """The description in a target of TVM."""
        known = {str(key): value for key, value in target.attrs.items()}
        threads = int(known.get("max_threads_per_block", known.get("max_num_threads", 256)))
        return cls(
            target,
            threads=threads,
            shared=int(known.get("max_shared_memory_per_block", 32 << 10)),
        )

    def lanes(self, bits: int) -> int:
        """How many elements of a size one load takes."""
        return max(1, self.vector_bytes * 8 // max(bits, 8))


__all__ = ["GpuModel"]
