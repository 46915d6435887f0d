"""Names of the functions of the runtime that compiled code calls."""

ATEN = "torch_tvm.aten"
"""One op in PyTorch; its results share no memory with what it was given."""

LOOP = "torch_tvm.loop"
"""Calls a compiled loop body until its condition ends."""

ASSERT = "torch_tvm.assert"
"""Raises a program's own exception."""

BAD_INDEX = "torch_tvm.bad_index"
"""Raises the exception for a position out of range."""
