"""PyTorch's operator database, compiled and compared with eager.

``python -m torch_tvm.tools.opinfo --filter '^nn.functional' --dtype float32,int64 --via fx,lazy --json found.jsonl``

Every operator runs in a process of its own, so one that crashes or hangs is a line of the table. What the JSON file has
already is not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.tools.opinfo.isolation import Note, isolated
from torch_tvm.tools.opinfo.samples import DTYPES, database
from torch_tvm.tools.opinfo.sweep import FRONTENDS, VERDICTS, Outcome, swept

_GOOD = ("agree", "in PyTorch", "uncaptured", "unsupported")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen operators, print what is wrong and a table; 1 where something is, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="python -m torch_tvm.tools.opinfo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--filter", default="", help="regular expression over names of operators")
    parser.add_argument("--dtype", default="float32", help="dtypes, comma-separated, or all")
    parser.add_argument("--via", default="fx", help=f"frontends, comma-separated: {', '.join(FRONTENDS)}")
    parser.add_argument("--samples", type=int, default=3, help="samples of an operator; each once more with extremes")
    parser.add_argument("--draw", type=int, default=0, metavar="N", help="only N operators, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-fallback", action="store_true", help="an op without a kernel is not compiled")
    parser.add_argument("--timeout", type=int, default=180, help="seconds for an operator")
    parser.add_argument("--json", metavar="FILE", help="a line for each operator, dtype and frontend")
    chosen = parser.parse_args(argv)
    names = {dtype_name(dtype): dtype for dtype in (*DTYPES, torch.complex64)}
    dtypes = list(names) if chosen.dtype == "all" else chosen.dtype.split(",")
    frontends = chosen.via.split(",")
    for given, known, option in ((dtypes, names, "--dtype"), (frontends, FRONTENDS, "--via")):
        for item in given:
            if item not in known:
                parser.error(f"{option}: unknown '{item}', known: {', '.join(known)}")
    try:
        wanted = re.compile(chosen.filter)
    except re.error as error:
        parser.error(f"--filter is no regular expression: {error}")
    ops = [op for op in sorted(database(), key=lambda op: op.full_name) if wanted.search(op.full_name)]
    if chosen.draw:
        ops = random.Random(chosen.seed).sample(ops, min(chosen.draw, len(ops)))
    if not ops:
        parser.error("no operator matches")
    lines = _run(ops, {name: names[name] for name in dtypes}, frontends, chosen)
    print(_table(lines))
    return int(any(verdict not in _GOOD for line in lines for verdict in line["verdicts"]))


def _run(
    ops: Sequence[Any], dtypes: dict[str, torch.dtype], frontends: Sequence[str], chosen: argparse.Namespace
) -> list[dict[str, Any]]:
    """A line for each operator, dtype and frontend, those that the file has included."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import torch_tvm.driver.compiler  # imported once, before the children
    import torch_tvm.dynamo  # noqa: F401

    file = Path(chosen.json) if chosen.json else None
    before = [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []
    done = {(line["op"], line["dtype"], line["via"]): line for line in before}
    lines = []
    for op, (name, dtype), frontend in itertools.product(ops, dtypes.items(), frontends):
        if dtype not in op.dtypes:
            continue
        line = done.get((op.full_name, name, frontend))
        if line is None:
            started = time.monotonic()
            outcome = _isolated(op, dtype, frontend, chosen)
            line = {"op": op.full_name, "dtype": name, "via": frontend}
            line |= {"verdicts": dict(outcome.verdicts), "found": outcome.found}
            line["seconds"] = round(time.monotonic() - started, 1)
            if file:
                with file.open("a") as lines_of_file:
                    lines_of_file.write(json.dumps(line) + "\n")
        lines.append(line)
        for text in line["found"]:
            if not text.startswith(_GOOD):
                print(f"{op.full_name} {name} {frontend}: {text}", flush=True)
    return lines


def _isolated(op: Any, dtype: torch.dtype, frontend: str, chosen: argparse.Namespace) -> Outcome:
    """An operator in a process of its own; how that ended if it did not end well."""

    def work(note: Note) -> dict[str, Any]:
        outcome = swept(
            op,
            dtype,
            frontend,
            count=chosen.samples,
            seed=chosen.seed,
            fallback=not chosen.no_fallback,
            at=note,
        )
        return {"verdicts": dict(outcome.verdicts), "found": outcome.found}

    result, how = isolated(work, chosen.timeout)
    if result is not None:
        return Outcome(Counter(result["verdicts"]), result["found"])
    verdict, _, text = how.partition(": ")
    outcome = Outcome()
    outcome.note(verdict, text)
    return outcome


def _table(lines: Sequence[dict[str, Any]]) -> str:
    """Operators by frontend and dtype: each counts as the worst of its calls."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for line in lines:
        if line["verdicts"]:
            worst = max(line["verdicts"], key=VERDICTS.index)
            counts.setdefault((line["via"], line["dtype"]), Counter())[worst] += 1
    used = [verdict for verdict in VERDICTS if any(count[verdict] for count in counts.values())]
    rows = [["via", "dtype", "operators", *used]]
    for (via, dtype), count in counts.items():
        rows.append([via, dtype, str(count.total()), *(str(count[verdict]) for verdict in used)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


__all__ = ["main"]
