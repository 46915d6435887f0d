"""Polynomials with known coefficients, as scalar expressions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import tvm
from tvm import tirx

Scalar: TypeAlias = tvm.ir.Expr


def constants(like: Scalar) -> Callable[[float], Scalar]:
    """A function that gives numbers of the dtype of ``like``."""
    return functools.partial(tirx.const, dtype=str(like.ty.dtype))


def horner(x: Scalar, coefficients: Sequence[float]) -> Scalar:
    """``c[0] + c[1] x + c[2] x² + …``"""
    constant = constants(x)
    return functools.reduce(
        lambda total, c: total * x + constant(c), reversed(coefficients[:-1]), constant(coefficients[-1])
    )


__all__ = ["constants", "horner"]
