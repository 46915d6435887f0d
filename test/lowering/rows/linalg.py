"""Linear algebra, which is a call of LAPACK; what a factorisation leaves open (signs, order) is multiplied out."""

from __future__ import annotations

from typing import Any

import torch
from lowering.rows import Cases, Row, Sample, row
from torch import Tensor as T

la = torch.linalg
F64 = torch.float64


def regular(s: Sample) -> Cases:
    """Regular matrices, batched and not, of both precisions, and right sides."""
    return [
        (s.floats(2, 4, 4, low=-1, high=1) + 5 * torch.eye(4), s.floats(2, 4, 2)),
        (s.floats(4, 4, dtype=F64) + 9 * torch.eye(4), s.floats(4, 3, dtype=F64)),
    ]


def definite(s: Sample) -> Cases:
    """Symmetric positive definite matrices, and right sides."""
    cases = []
    for shape, dtype in (((2, 4, 4), torch.float32), ((1, 3, 3), F64)):
        x = s.floats(*shape, dtype=dtype)
        y = s.floats(*shape[:-1], 2, dtype=dtype)
        cases.append((x @ x.mT + shape[-1] * torch.eye(shape[-1], dtype=dtype), y))
    return cases


def oblong(s: Sample) -> Cases:
    return [(s.floats(2, 5, 3),), (s.floats(1, 4, 4, dtype=F64),)]


def oblong_and_right_side(s: Sample) -> Cases:
    return [(s.floats(2, 5, 3), s.floats(2, 5, 2)), (s.floats(4, 4) + 5 * torch.eye(4), s.floats(4, 2))]


def several(s: Sample) -> Cases:
    return [(s.floats(4, 4, low=-1, high=1) + 5 * torch.eye(4), s.floats(4, 5, low=-1, high=1), s.floats(2, 3))]


def _product(factors: Any) -> T:
    u, s, v = factors
    return u * s.unsqueeze(-2) @ v


def _eigh(x: T) -> tuple[T, T]:
    values, vectors = la.eigh(x)
    return values, vectors * values.unsqueeze(-2) @ vectors.mT


def _lu(x: T) -> tuple[T, T]:
    p, lower, upper = la.lu(x)
    return p @ lower @ upper, upper


def _regular(x: T, y: T) -> list[Any]:
    packed = la.lu_factor(x)
    return [
        la.det(x), *la.slogdet(x), la.inv(x), torch.inverse(x), *la.inv_ex(x), la.solve(x, y),
        la.solve(x, y.mT, left=False), la.solve_ex(x, y), _lu(x), la.lu_factor_ex(x), torch.lu_unpack(*packed),
        la.lu_solve(*packed, y), torch.lu_solve(y, *packed), la.matrix_exp(x / 9), torch.matrix_exp(x / 9),
    ]  # fmt: skip


def _definite(x: T, y: T) -> list[Any]:
    lower = la.cholesky(x)
    return [
        torch.logdet(x), lower, la.cholesky_ex(x, upper=True), torch.cholesky(x), torch.cholesky_solve(y, lower),
        torch.cholesky_inverse(lower), la.solve_triangular(lower, y, upper=False),
        torch.triangular_solve(y, lower, upper=False), la.ldl_solve(*la.ldl_factor(x), y), la.ldl_factor_ex(x),
        _eigh(x), la.eigvalsh(x),
    ]  # fmt: skip


def _oblong(x: T) -> list[Any]:
    q, r = la.qr(x)
    reflectors, scales = torch.geqrf(x)
    return [
        q @ r, r.abs(), la.qr(x, mode="r")[1].abs(), torch.qr(x)[1].abs(),
        _product(la.svd(x, full_matrices=False)), la.svdvals(x), torch.svd(x)[1], torch.pinverse(x), la.matrix_rank(x),
        la.householder_product(reflectors, scales).abs(), torch.ormqr(reflectors, scales, x).abs(),
    ]  # fmt: skip


def _least_squares(x: T, y: T) -> list[Any]:
    given = la.lstsq(x, y, driver="gelsd")
    return [
        *la.lstsq(x, y),
        *given[:1],
        *given[2:],
        *la.lstsq(x, y, driver="gels")[:2],
        la.lstsq(x, y[..., 0]).solution,
    ]


def _norms(x: T) -> list[Any]:
    return [
        la.cond(x), la.cond(x, 1), la.cond(x, "fro"), la.cond(x, "nuc"), la.matrix_norm(x, "nuc"), la.matrix_norm(x, 2),
        la.norm(x, -2, dim=(-2, -1)), la.matrix_norm(x), la.matrix_norm(x, float("inf")), la.matrix_power(x / 9, 3),
        la.matrix_power(x, -2),
    ]  # fmt: skip


def _tensors(x: T, y: T, z: T) -> list[Any]:
    cube = x.reshape(2, 2, 4)
    return [
        la.tensorinv(cube),
        la.tensorsolve(cube, x[:2, :2]),
        la.multi_dot([y, y.mT, y, y.mT]),
        la.vander(z),
    ]


def growing(s: Sample, n: int) -> tuple[T]:
    return (s.floats(n, n, low=-1, high=1) + 5 * torch.eye(n),)


def named(names: str) -> list[str]:
    return [f"aten.{name}" for name in names.split()]


_REGULAR = (
    "linalg_det linalg_slogdet linalg_inv linalg_inv_ex linalg_solve linalg_solve_ex linalg_lu linalg_lu_factor "
    "linalg_lu_factor_ex lu_unpack linalg_lu_solve lu_solve linalg_matrix_exp"
)
_DEFINITE = (
    "logdet linalg_cholesky linalg_cholesky_ex cholesky cholesky_solve cholesky_inverse linalg_solve_triangular "
    "triangular_solve linalg_ldl_factor linalg_ldl_solve linalg_ldl_factor_ex linalg_eigh linalg_eigvalsh"
)
_OBLONG = (
    "linalg_qr qr linalg_svd linalg_svdvals svd pinverse linalg_matrix_rank.atol_rtol_tensor geqrf "
    "linalg_householder_product ormqr"
)
_NORMS = "linalg_cond linalg_cond.p_str linalg_matrix_norm linalg_matrix_norm.str_ord linalg_norm linalg_matrix_power"

ROWS: list[Row] = [
    row(named(_REGULAR), _regular, regular, id="linalg-regular", slack=1e-4),
    row(named(_DEFINITE), _definite, definite, id="linalg-definite", slack=1e-4),
    row(named(_OBLONG), _oblong, oblong, id="linalg-oblong", slack=1e-4),
    row("aten.linalg_lstsq", _least_squares, oblong_and_right_side),
    row(named(_NORMS), _norms, lambda s: [case[:1] for case in regular(s)], id="linalg-norms", slack=1e-4),
    row(
        named("linalg_tensorinv linalg_tensorsolve linalg_multi_dot linalg_vander"),
        _tensors,
        several,
        id="linalg-tensors",
    ),
    row(
        named("linalg_det linalg_inv"),
        lambda x: (la.det(x), la.inv(x)),
        lambda s: [growing(s, 3)],
        id="linalg-growing",
        dynamic=growing,
        slack=1e-3,
    ),
    row("aten.linalg_pinv.atol_rtol_tensor", lambda x: (la.pinv(x), la.pinv(x @ x.mT, hermitian=True)), oblong),
]
