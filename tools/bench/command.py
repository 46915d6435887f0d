"""``torch-tvm bench``: the command line."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch_tvm.runtime.threads import usable_cores
from torch_tvm.support.errors import InvalidInput, TorchTvmError
from torch_tvm.support.files import check_writable
from torch_tvm.tools.bench.measure import Comparison, Plan, compare
from torch_tvm.tools.bench.options import Options
from torch_tvm.tools.bench.plot import check_plot, plot
from torch_tvm.tools.bench.runtimes import RUNTIMES
from torch_tvm.tools.bench.suites import SUITES, models_of
from torch_tvm.tools.bench.table import markdown
from torch_tvm.tools.bench.training import COMPILERS
from torch_tvm.tools.command_line import Parser, count, fail

_PEERS = tuple(name for name in RUNTIMES if name != "ours")
_USUAL, _TRAIN = "eager,inductor,onnxruntime,openvino", "eager,inductor"
_QUICK = Plan(rounds=3, iteration_seconds=0.05)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark of ``argv`` and print its table; 0 when ours ran (or imported) every model, 1 otherwise, 2
    for a wrong argument."""
    try:
        options = _parser().parse_args(argv)
        check_writable(options.output, "-o")
        models, peers = models_of(options.suite, options.models), _peers(options)
        if options.plot:
            check_plot(options.plot)
        if options.imports:
            return _imports(models, options)
        return _kernels(models, options) if options.kernels else _compare_all(models, peers, options)
    except InvalidInput as error:
        fail("torch-tvm bench", error, is_json=False)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="torch-tvm bench", description=__doc__)
    parser.add_argument("--suite", choices=sorted(SUITES), default="cpu")
    parser.add_argument("--models", metavar="REGEX", help="only models whose whole name matches")
    parser.add_argument("--peers", help=f"of {','.join(_PEERS)}; by default {_USUAL}, or {_TRAIN} for --training")
    parser.add_argument("--threads", type=count, default=len(usable_cores()))
    parser.add_argument("--batch", type=count, default=1)
    parser.add_argument("--rounds", type=count, help=f"turns of each runtime, {Plan.rounds} by default")
    parser.add_argument("--accuracy", choices=("strict", "default", "fast"), default="default")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK.rounds} short rounds")
    parser.add_argument("--kernels", action="store_true", help="time our kernels one by one instead")
    parser.add_argument("--training", action="store_true", help="time steps of training (forward, backward) instead")
    parser.add_argument("--imports", action="store_true", help="time the import by each frontend instead")
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="write the table there as well")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw speeds to a PNG, SVG or PDF")
    return parser


def _peers(options: argparse.Namespace) -> list[str]:
    text = options.peers if options.peers is not None else _TRAIN if options.training else _USUAL
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in _PEERS:
            raise InvalidInput(f"unknown runtime '{name}'", subject="--peers", advice=f"known: {', '.join(_PEERS)}")
        if options.training and name not in COMPILERS:
            raise InvalidInput(f"'{name}' does not train", subject="--peers", advice=f"of them {_TRAIN} do")
    return list(dict.fromkeys(names))


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _compare_all(models: Sequence[str], peers: Sequence[str], options: argparse.Namespace) -> int:
    settings = Options(options.threads, options.accuracy, options.training)
    plan = _QUICK if options.quick else Plan()
    plan = Plan(options.rounds or plan.rounds, plan.iteration_seconds)
    comparisons: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="torch-tvm-bench-") as folder:
        for model in models:
            comparisons.append(
                compare(model, peers, settings, plan, Path(folder), batch=options.batch, progress=_progress)
            )
            text = markdown(comparisons, settings, options.batch)
            if options.output:
                options.output.write_text(text)
            if options.plot:
                plot(comparisons, options.plot)
    _progress("")
    print(text, end="")
    return int(any(comparison.ours.failure for comparison in comparisons))


def _kernels(models: Sequence[str], options: argparse.Namespace) -> int:
    import torch

    import torch_tvm
    from torch_tvm.tools.zoo import build

    torch.set_num_threads(options.threads)
    parts, failed = [], False
    for model in models:
        module, args = build(model, options.batch)
        _progress(f"{model}: compiles")
        try:
            compiled = torch_tvm.compile(module, args, options={"accuracy": options.accuracy})
            parts.append(f"{model}\n\n{compiled.benchmark(*args)}")
        except TorchTvmError as error:
            parts.append(f"{model}: {error}")
            failed = True
    _progress("")
    text = "\n\n".join(parts) + "\n"
    print(text, end="")
    if options.output:
        options.output.write_text(text)
    return int(failed)


def _imports(models: Sequence[str], options: argparse.Namespace) -> int:
    import torch

    from torch_tvm.tools.bench.imports import imports_markdown, time_imports

    torch.set_num_threads(options.threads)
    rounds = options.rounds or (_QUICK if options.quick else Plan()).rounds
    time_imports("mlp", 1, 1)  # PyTorch and MLIR load parts of themselves on first use
    timed = []
    for model in models:
        _progress(f"{model}: imports")
        timed.append(time_imports(model, options.batch, rounds))
    _progress("")
    text = imports_markdown(timed, options.batch, rounds)
    print(text, end="")
    if options.output:
        options.output.write_text(text)
    return int(any(times.failures for times in timed))


__all__ = ["main"]
