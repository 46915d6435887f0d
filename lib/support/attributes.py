"""Attributes by which a compiler stage tells a later one of a module or a function (what kernels
are: lib/workloads).
"""

PROGRAM = "torch_tvm.weights_program"
"""On a module: the work on weights as a program in JSON that the runtime runs once."""

TRANSFORM_PARAMS = "main_transform_params"
"""The function of a module that does the work on weights, where there is no such program."""

HIDDEN = "torch_tvm_hidden"
"""The function in kernels that returns its argument, a count, and tells LLVM nothing of it."""

KERNEL_SEQUENCE = "torch_tvm.kernel_sequence"
"""The function does nothing but call kernels one after the other."""

CHECKS_ELIDED = "torch_tvm.checks_elided"
"""The kernel reads nothing but weights and what other kernels made, so that it need not check its arguments."""
