"""Attributes on TIR functions by which one stage tells a later one what a kernel is."""

POINTWISE = "torch_tvm.pointwise"
"""The kernel computes each element of its result from the elements at the same place of its operands."""

RESHAPE = "torch_tvm.reshape"
"""The kernel copies its operand as it lies, into another shape."""

HOST = "torch_tvm.host"
"""The kernel only rearranges its operand; the value says how, as JSON."""

SCAN = "torch_tvm.scan"
"""The kernel scans its operand: ``axis``, and whether what it does is ``associative``, as JSON."""

PROGRAM = "torch_tvm.weights_program"
"""On a module: the work on weights as a program in JSON that the runtime runs once."""

HIDDEN = "torch_tvm_hidden"
"""The function in kernels that returns its argument, a count, and tells LLVM nothing of it."""

RECURRENT = "torch_tvm.recurrent"
"""The kernel is the time loop of a recurrent layer; the value describes it, as JSON."""

KERNEL_SEQUENCE = "torch_tvm.kernel_sequence"
"""The function does nothing but call kernels one after the other."""

CHECKS_ELIDED = "torch_tvm.trusted"
"""The kernel reads nothing but weights and what other kernels made, so that it need not check its arguments."""
