"""Ops that a compiled program calls in a library which PyTorch brings along: LAPACK, and its random numbers.

We write no numerics of these ourselves. Such a call is part of compiled code: no warning names it, and no option
forbids it.
"""

from __future__ import annotations

from functools import cache

from torch_tvm.aten.calls import is_random

LINEAR_ALGEBRA = "linear algebra: LAPACK through PyTorch"
RANDOM_NUMBERS = "random numbers: PyTorch's generator"
SPECIAL_FUNCTIONS = "special functions: PyTorch's kernel"
FOURIER_TRANSFORMS = "Fourier transforms of unknown length: PyTorch's kernel"
DRAWN_POOLING = "pooling of drawn windows: PyTorch's kernel"

FACTORISATIONS = frozenset(
    "_linalg_det _linalg_eigh _linalg_eigvals _linalg_slogdet _linalg_solve_ex _linalg_svd linalg_cholesky "
    "linalg_cholesky_ex linalg_det linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product "
    "linalg_inv linalg_inv_ex linalg_ldl_factor linalg_ldl_factor_ex linalg_ldl_solve linalg_lstsq linalg_lu "
    "linalg_lu_factor linalg_lu_factor_ex linalg_lu_solve linalg_matrix_exp linalg_matrix_rank linalg_pinv linalg_qr "
    "linalg_slogdet linalg_solve linalg_solve_ex linalg_solve_triangular linalg_svd linalg_svdvals linalg_tensorinv "
    "linalg_tensorsolve _linalg_check_errors _lu_with_info cholesky cholesky_inverse cholesky_solve det geqrf "
    "inverse logdet "
    "lu_solve lu_unpack matrix_exp orgqr ormqr pinverse qr slogdet svd triangular_solve".split()
)
"""Factorisations of matrices and what is read off them."""

COMPOSED = frozenset(
    "linalg_cond linalg_matrix_norm linalg_matrix_power linalg_multi_dot linalg_norm linalg_vander chain_matmul "
    "frobenius_norm matrix_power nuclear_norm norm vander linalg_cross cross".split()
)
"""Linear algebra that PyTorch composes of other ops, where sizes are known; a call as a whole where they are not."""

_SPECIAL = frozenset(("igamma", "igammac"))

_POOLING = frozenset(("fractional_max_pool2d", "fractional_max_pool3d"))

_NOT_DRAWN_WHOLE = frozenset("lstm gru rnn_tanh rnn_relu scaled_dot_product_attention".split())
"""Ops that draw for dropout alone, and have other reasons not to be compiled."""


@cache
def library_of(name: str) -> str | None:
    """Which library has an op for which there is no kernel, in words; ``None`` for other ops."""
    namespace, _, rest = name.removeprefix("torch.").removeprefix("valsem.").partition(".")
    base = rest.partition(".")[0]
    if namespace != "aten":
        return None
    if base in FACTORISATIONS or base in COMPOSED:
        return LINEAR_ALGEBRA
    if base in _SPECIAL:
        return SPECIAL_FUNCTIONS
    if base in _POOLING:
        return DRAWN_POOLING
    is_drawn = is_random(name) and base not in _NOT_DRAWN_WHOLE and "attention" not in base
    return RANDOM_NUMBERS if is_drawn else None


def is_library_call(name: str) -> bool:
    """Whether an op of this name stays whole for a library, also where PyTorch could take it apart."""
    base = name.removeprefix("torch.aten.").partition(".")[0]
    return base not in COMPOSED and library_of(name) is not None


__all__ = [
    "COMPOSED",
    "FACTORISATIONS",
    "FOURIER_TRANSFORMS",
    "LINEAR_ALGEBRA",
    "RANDOM_NUMBERS",
    "SPECIAL_FUNCTIONS",
    "is_library_call",
    "library_of",
]
