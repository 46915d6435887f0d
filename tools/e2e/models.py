"""Models of the zoo as cases: with a batch of 1, of 4 and one that varies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from torch_tvm.tools.e2e.case import Case, Program
from torch_tvm.tools.numerics import assert_matches
from torch_tvm.tools.zoo import MODELS, Model, build

BATCHES = ("1", "4", "dynamic")


def model_cases(*, small: bool) -> list[Case]:
    """Models by batch. The small ones belong to ``ours``, with a batch of 1; ``models`` has all of them with each."""
    if small:
        return [_case(model, "1", "ours") for model in MODELS.values() if model.small]
    return [_case(model, batch, "models") for model in MODELS.values() for batch in BATCHES]


def _case(model: Model, batch: str, suite: str) -> Case:
    frontends = ("fx", "dynamo") if batch == "dynamic" else ("fx", "torchscript", "lazy", "dynamo")
    return Case(f"{model.name}-{batch}", _program(model, batch), suite, frontends)


def _program(model: Model, batch: str) -> Callable[[], Program]:
    def program() -> Program:
        sizes = (2, 1, 3, 8) if batch == "dynamic" else (int(batch),)
        module, example = build(model.name, sizes[0])
        calls = [example, *(model.inputs(size) for size in sizes[1:])]
        varying = {model.batch_axis: torch.export.Dim("batch", min=1, max=64)}
        shapes = [varying for _ in example] if batch == "dynamic" else None
        double = copy.deepcopy(module).double()

        def compare(results: Any, args: tuple[torch.Tensor, ...]) -> None:
            if any(tensor.is_floating_point() for tensor in args):
                in_either = lambda *given: (
                    double if any(tensor.dtype == torch.float64 for tensor in given) else module
                )(*given)
                assert_matches(results, in_either, args)
                return
            eager, exact = module(*args), double(*args)
            torch.testing.assert_close(results, eager, rtol=1e-4, atol=1e-4)
            error = (results.double() - exact).square().mean().sqrt()
            limit = 3 * (eager.double() - exact).square().mean().sqrt() + 1e-5
            assert error <= limit, f"RMSE {error:.3g} against float64, limit {limit:.3g}"

        return Program(module, calls, shapes, scripted=model.scriptable, compare=compare)

    return program


__all__ = ["model_cases"]
