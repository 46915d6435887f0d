"""Side effects of ops: which may run while a program is read or compiled, and in a module that came from a file.

A file names its ops. One that reaches beyond its operands (``aten::from_file`` makes a file, ``aten::manual_seed``
moves a generator) must not run because a file says so. An op is admitted by what its schema takes: tensors, numbers and
the like, and text only where that selects a mode.
"""

from __future__ import annotations

import re
from functools import lru_cache

import torch

NAMESPACES = frozenset({"aten", "prim", "prims", "quantized_decomposed", "torchvision", "valsem"})
"""Namespaces whose ops a file may name. Others are a user's own: ``parse(..., allow_ops=…)`` admits them."""

_OUTSIDE = re.compile(r"Storage|RRef|Future|Await|Stream|Capsule|QScheme|__torch__")
"""Types of operands through which an op would reach further than its operands."""

_TEXTS = frozenset(
    # what an op computes
    "UPLO activation approximate driver equation indexing interpolation mode norm ord p pad_mode padding padding_side "
    "reduce rounding_mode side type "
    # what an error says
    "assert_msg message msg cls api_name "
    # operands of the methods of str, list and dict
    "self a b s t l string substr chars separator old new fillchar values key idx el input inputs item dict "
    "to_add ind".split()
)
"""Arguments that may be text. ``filename`` and names that are looked up elsewhere are not among them."""

_STATEFUL = frozenset(
    f"aten::{name}"
    for name in "seed initial_seed manual_seed set_data backward _backward grad requires_grad_ retain_grad "
    "set_grad_enabled save from_file _print".split()
)
_INTERNAL = re.compile(r"prim::(rpc_|AddStat|Autograd)|aten::(_autocast|_record|_cuda|cudnn|_test)")


@lru_cache(maxsize=8192)
def is_harmless(overload: torch._ops.OpOverload) -> bool:
    """Whether an op touches nothing but its operands and PyTorch's generator of random numbers."""
    schema = overload._schema
    if schema.name in _STATEFUL or _INTERNAL.match(schema.name):
        return False
    if any(_OUTSIDE.search(str(each.type)) for each in (*schema.arguments, *schema.returns)):
        return False
    return all("str" not in str(a.type) or a.name in _TEXTS for a in schema.arguments)


def is_pure(overload: torch._ops.OpOverload) -> bool:
    """Whether an op gives the same results for the same operands and does nothing else."""
    is_random = torch.Tag.nondeterministic_seeded in overload.tags
    return is_harmless(overload) and not overload._schema.is_mutable and not is_random


def may_be_named(overload: torch._ops.OpOverload) -> bool:
    """Whether a file may name this op."""
    return overload.namespace in NAMESPACES and is_harmless(overload)


__all__ = ["is_harmless", "is_pure", "may_be_named"]
