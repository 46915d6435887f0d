"""What a kernel is: the contract between those who make kernels and the rules that schedule them.

A frozen dataclass for each workload. Who makes a kernel attaches it with ``to_attr()``, to the PrimFunc or to a block
of it; a rule reads it with ``from_attr``. No attribute of a kernel is spelled anywhere else.
"""
