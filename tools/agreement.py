"""The table of ``docs/torch_compile.md``: how each small model of the zoo runs by each way, against eager PyTorch.

``python -m torch_tvm.tools.agreement --page docs/torch_compile.md`` writes the table into the page, in about half an
hour.
"""

from __future__ import annotations

import argparse
import copy
import re
import unittest.mock
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import torch_tvm
from torch_tvm import jit
from torch_tvm.driver import compiler
from torch_tvm.inside_torch import graph_module
from torch_tvm.reporting.report import Report
from torch_tvm.tools.numerics import compare
from torch_tvm.tools.opinfo.isolation import Note, isolated
from torch_tvm.tools.zoo import MODELS, build

BATCHES = (2, 3, 5, 4)
"""Sizes of the batch where it varies; the first is that of the other columns too."""

TOLERANCE = 1e-3
"""Largest difference from eager PyTorch, as a part of the largest number of a result or a gradient; where it is larger,
the error against float64 is to be no more than three times eager's.
"""

Step = Callable[..., Any]


def models() -> list[str]:
    """Names of the models that the table has."""
    return [model.name for model in MODELS.values() if model.small or model.name in ("bert", "gpt2")]


@contextmanager
def _compiles() -> Iterator[list[Report]]:
    """The reports of all programs and graphs that are compiled meanwhile."""
    reports: list[Report] = []

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            compiled = original(*args, **kwargs)
            reports.append(compiled.report)
            return compiled

        return call

    with ExitStack() as stack:
        for where in (compiler, jit, graph_module):
            patch = unittest.mock.patch.object(where, "compile_module", watched(where.compile_module))
            stack.enter_context(patch)
        yield reports


# -- the ways ------------------------------------------------------------------------------------------


def _compiled(name: str, module: nn.Module, example: Sequence[Any], varies: bool, until: ExitStack) -> Step:
    axis, shapes = MODELS[name].batch_axis, None
    if varies:
        batch = torch.export.Dim("batch", min=2, max=64)
        shapes = tuple({axis: batch} for _ in example)
    compiled = torch_tvm.compile(module, tuple(example), dynamic_shapes=shapes)
    return lambda *args: compiled(*args)


def _by_torch_compile(name: str, module: nn.Module, example: Sequence[Any], varies: bool, until: ExitStack) -> Step:
    torch._dynamo.reset()
    compiled: Step = torch.compile(module, backend="torch_tvm")
    return compiled


def _enabled(name: str, module: nn.Module, example: Sequence[Any], varies: bool, until: ExitStack) -> Step:
    until.enter_context(torch_tvm.enable())
    if MODELS[name].scriptable:
        script: Step = torch.jit.script(module)
        return script
    with torch.no_grad():
        traced: Step = torch.jit.trace(module, tuple(example), strict=False)
    return traced


WAYS: dict[str, Callable[[str, nn.Module, Sequence[Any], bool, ExitStack], Step]] = {
    "`torch_tvm.compile`": _compiled,
    "`torch.compile`": _by_torch_compile,
    "`enable()`": _enabled,
}

COLUMNS = [(way, mode) for way in WAYS for mode in ("inference", "training", "dynamic")]


def cell(name: str, way: str, mode: str) -> str:
    """What the table says of a model by a way: ``yes 100 % 1 0``."""
    torch.manual_seed(0)
    module, _ = build(name)
    if mode == "training" and (way == "`torch_tvm.compile`" or not list(module.parameters())):
        return "–"
    module.train(mode == "training")
    batches = BATCHES if mode == "dynamic" else BATCHES[:1] * 3
    calls = [MODELS[name].inputs(batch) for batch in batches]
    with _compiles() as reports, torch.set_grad_enabled(mode == "training"), ExitStack() as until:
        step = WAYS[way](name, module, calls[0], mode == "dynamic", until)
        agrees, counts = True, []
        for args in calls:
            is_trained = mode == "training"
            eager, ours = (_results(run, module, args, is_trained) for run in (module, step))
            agrees &= _agree(eager, ours) or _as_exact(eager, ours, module, args, is_trained)
            counts.append(len(reports))
    return f"{'yes' if agrees else '**no**'} {_share(reports)} {counts[0]} {counts[-1] - counts[0]}"


def _results(run: Step, module: nn.Module, args: Sequence[Any], is_trained: bool) -> list[torch.Tensor]:
    """What a call gives; in training the gradients of all parameters, and the statistics that it leaves, too."""
    buffers = [buffer.clone() for buffer in module.buffers()]
    torch.manual_seed(1)
    found = [leaf for leaf in pytree.tree_leaves(run(*args)) if isinstance(leaf, torch.Tensor)]
    if not is_trained:
        return found
    floats = [result.float().square().mean() for result in found if result.is_floating_point()]
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(torch.stack(floats).sum(), parameters, allow_unused=True)
    left = [buffer.clone() for buffer in module.buffers()]
    with torch.no_grad():
        for buffer, before in zip(module.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return [*found, *(gradient for gradient in gradients if gradient is not None), *left]


def _agree(eager: Sequence[torch.Tensor], ours: Sequence[torch.Tensor]) -> bool:
    largest = max((float(t.detach().abs().max()) for t in eager if t.numel()), default=0.0)
    return len(eager) == len(ours) and all(
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.allclose(a, b, TOLERANCE, TOLERANCE * min(1.0, largest), equal_nan=True)
        for a, b in zip(eager, ours, strict=True)
    )


def _as_exact(
    eager: Sequence[torch.Tensor],
    ours: Sequence[torch.Tensor],
    module: nn.Module,
    args: Sequence[Any],
    is_trained: bool,
) -> bool:
    """Whether results are as near to those of float64 as eager's are, by the rule of ``numerics.py``.

    Batch norms of few numbers make much of the rounding before them.
    """
    double = copy.deepcopy(module).double()
    in_double = [arg.double() if arg.is_floating_point() else arg for arg in args]
    exact = _results(double, double, in_double, is_trained)
    try:
        for mine, theirs, best in zip(ours, eager, exact, strict=True):
            compare(mine, theirs, best)
    except AssertionError:
        return False
    return True


def _share(reports: Sequence[Report]) -> str:
    """Ops in compiled code, in per cent of those in all graphs; nothing where none was compiled."""
    ops = sum(len(report.ops) for report in reports)
    left = sum(len(report.fallbacks) for report in reports)
    return f"{100 * (ops - left) // ops} %" if ops else "0 %"


# -- the table -----------------------------------------------------------------------------------------


def row(name: str, seconds: int = 600) -> str:
    """The line of a model; its columns in a process of their own."""

    def work(note: Note) -> dict[str, Any]:
        warnings.simplefilter("ignore")
        found = {}
        for way, mode in COLUMNS:
            note(f"{way} {mode}")
            try:
                found[f"{way} {mode}"] = cell(name, way, mode)
            except Exception as error:  # what cannot be compiled is what the table is to show
                found[f"{way} {mode}"] = f"**{type(error).__name__}**"
        return found

    found, how = isolated(work, seconds)
    cells = [(found or {}).get(f"{way} {mode}", f"**{how}**") for way, mode in COLUMNS]
    return f"| {name} | {' | '.join(cells)} |"


def table(rows: Sequence[str]) -> str:
    """The table of these lines."""
    heads = ["model", *(f"{way}, {mode}" for way, mode in COLUMNS)]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *rows])


_MARKS = "<!-- begin of the table -->", "<!-- end of the table -->"


def written(page: str, rows: Sequence[str]) -> str:
    """The page with this table between its marks."""
    begin, end = (re.escape(mark) for mark in _MARKS)
    text, count = re.subn(rf"{begin}.*{end}", lambda _: f"{_MARKS[0]}\n{table(rows)}\n{_MARKS[1]}", page, flags=re.S)
    if count != 1:
        raise ValueError("the page has no marks of the table")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the models and write the table, or print rows."""
    parser = argparse.ArgumentParser(prog="python -m torch_tvm.tools.agreement", description=__doc__)
    parser.add_argument("--filter", default="", help="regular expression over names of models")
    parser.add_argument("--page", metavar="FILE", help="write the table there; without it rows are printed")
    chosen = parser.parse_args(argv)
    wanted = [name for name in models() if re.search(chosen.filter, name)]
    if not wanted:
        parser.error("no model matches")
    if chosen.filter and chosen.page:
        parser.error("--page writes all models: leave --filter out")
    rows = []
    for name in wanted:
        rows.append(row(name))
        if not chosen.page:
            print(rows[-1], flush=True)
    if chosen.page:
        page = Path(chosen.page)
        page.write_text(written(page.read_text(), rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

__all__ = ["COLUMNS", "WAYS", "cell", "main", "models", "row", "table", "written"]
