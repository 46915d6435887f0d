"""The correctness rule, for tests; the end-to-end script uses the same one."""

from torch_tvm.tools.numerics import assert_matches, compare

__all__ = ["assert_matches", "compare"]
