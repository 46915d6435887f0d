"""``docs/coverage.md``: what compiles each op of ATen's core and of the Torch dialect, by dtype.

``python -m torch_tvm.tools.coverage --output docs/coverage.md`` writes the page. Samples are those of PyTorch's
operator database for an op of the same name; they are imported and lowered, and nothing is compiled.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from torch_tvm.aten.calls import overload_of
from torch_tvm.aten.libraries import library_of
from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import new_context
from torch_tvm.dialect.module import TorchModule
from torch_tvm.driver.pipeline import decomposed, lower_decomposed
from torch_tvm.inside_torch.decomposition import has_decomposition
from torch_tvm.lowering.registry import COMPLEX, LOWERINGS
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.tools.opinfo.isolation import Note, isolated
from torch_tvm.tools.opinfo.samples import DTYPES, Case, cases, database, eager_result
from torch_tvm.tools.opinfo.sweep import Bundle

STATES = ("kernel", "decomposition", "library", "PyTorch", "none")
"""Best first: a kernel of ours; ops that have one, in its place; a call of a library, such as LAPACK; left to PyTorch;
not imported."""

COLUMNS = {
    "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64,
    "i32": torch.int32, "u8": torch.uint8, "bool": torch.bool, "c64": torch.complex64,
}  # fmt: skip
assert {*COLUMNS.values()} == {*DTYPES, torch.complex64}

LETTERS = dict(zip(STATES, "KDLP-", strict=True))

SAMPLES = 6
"""Samples of an operator in each dtype, in one program."""

Found: TypeAlias = dict[str, dict[str, str]]
"""State by op and column; column ``sizes`` says whether sizes may vary."""


def operators() -> list[str]:
    """Names of ops without side effects in ATen's core or in the Torch dialect: ``aten.add.Tensor``."""
    context, names = new_context(), []
    for schema in torch._C._jit_get_all_schemas():
        if not schema.name.startswith("aten::") or schema.is_mutable or schema.overload_name.endswith("out"):
            continue
        name = ".".join(filter(None, (schema.name.replace("::", "."), schema.overload_name)))
        overload = overload_of(name)
        is_core = overload is not None and torch.Tag.core in overload.tags
        takes_tensor = any("Tensor" in str(part.type) for part in (*schema.arguments, *schema.returns))
        if takes_tensor and (is_core or context.is_registered_operation(f"torch.{name}")):
            names.append(name)
    return sorted(set(names))


def by_name(op: str) -> str:
    """The state of an op as the registries have it; its operands may be refused."""
    name = f"torch.{op}"
    if name in LOWERINGS or name in COMPLEX:
        return "kernel"
    if library_of(name) is not None:
        return "library"
    return "decomposition" if has_decomposition(name) else "PyTorch"


# -- samples -------------------------------------------------------------------------------------------


def sampled(base: str, timeout: int = 240) -> Found:
    """The states of the ops ``aten.base`` and ``aten.base.*`` that the samples of ``base`` call."""
    infos = [info for info in database() if info.aten_name == base]

    def work(note: Note) -> dict[str, Any]:
        found: Found = {}
        for info in infos:
            for column, dtype in COLUMNS.items():
                if dtype in info.dtypes:
                    note(f"{info.full_name} {column}")
                    _join(found, _of_dtype(info, base, column, dtype))
        return found

    warnings.simplefilter("ignore")
    result, _ = isolated(work, timeout)
    return result or {}


def _of_dtype(info: Any, base: str, column: str, dtype: torch.dtype) -> Found:
    try:
        drawn = [case for case in cases(info, dtype, 0, SAMPLES) if case.kind == "sample"]
        drawn = [case for case in drawn if eager_result(case) is not None]
    except Exception:  # some samples need what is not there
        return {}
    found: Found = {}
    if not drawn:
        return found
    try:
        _join(found, {op: {column: state} for op, state in _states(_imported(drawn), base).items()})
    except Exception:
        # One by one: a sample that cannot be imported is none, the others are what they are.
        for case in drawn:
            try:
                states = _states(_imported([case]), base)
            except Exception:
                states = {f"aten.{base}": "none"}
            _join(found, {op: {column: state} for op, state in states.items()})
    if column == "f32":
        _join(found, {op: {"sizes": _varies(drawn[0], op, base)} for op in found})
    return found


def _imported(drawn: Sequence[Case], dynamic_shapes: Any = None) -> TorchModule:
    from torch_tvm.importers.fx import import_fx

    tensors = tuple(tensor.clone() for case in drawn for tensor in case.tensors)
    return import_fx(Bundle(drawn), tensors, dynamic_shapes=dynamic_shapes)


def _states(imported: TorchModule, base: str) -> dict[str, str]:
    """The state of each op of this name in a program, at its worst."""
    mine = re.compile(rf"torch\.aten\.{re.escape(base)}(\.\w+)?$")
    names = {name for op in view.walk(imported.main) if mine.match(name := view.op_name(op))}
    module = decomposed(canonicalize(imported))
    lowered = lower_decomposed(module)
    left = {item.op for item in lowered.fallbacks}
    called = {item.op for item in lowered.library_calls}
    kept = {view.op_name(op) for op in view.walk(module.main)}

    def state(name: str) -> str:
        if name in left or (left and name not in kept):
            return "PyTorch"
        if name in called or (called and name not in kept):
            return "library"
        return "kernel" if name in kept else "decomposition"

    return {name.removeprefix("torch."): state(name) for name in names}


def _varies(case: Case, op: str, base: str) -> str:
    """Whether a call lowers where every size but those of 0 and 1 may vary: yes, some sizes, or no."""
    automatic = torch.export.Dim.AUTO
    shapes = [{axis: automatic for axis, size in enumerate(t.shape) if size > 1} for t in case.tensors]
    if not any(shapes):
        return ""
    try:
        imported = _imported([case], {"tensors": tuple(shapes)})
        states = _states(imported, base)
    except Exception:
        return "no"
    if states.get(op) not in STATES[:3]:
        return "no" if op in states else ""
    kinds = [view.tensor_type(value) for value in imported.main.entry_block.arguments]
    sizes = [size for kind in kinds if kind is not None for size in kind.shape or () if size not in (0, 1)]
    unknown = sum(size is None for size in sizes)
    return "yes" if unknown == len(sizes) else "some" if unknown else "no"


_RANK = {state: rank for rank, state in enumerate(("", "yes", "some", "no", *STATES))}


def _join(found: Found, more: Mapping[str, Mapping[str, str]]) -> None:
    """Add states by op and column to ``found``; where there is one already, the worse of both stays."""
    for op, states in more.items():
        known = found.setdefault(op, {})
        for column, state in states.items():
            known[column] = max(known.get(column, ""), state, key=_RANK.__getitem__)


# -- the page ------------------------------------------------------------------------------------------


def row(op: str, found: Mapping[str, str]) -> str:
    """The line of an op."""
    cells = [LETTERS.get(found.get(column, ""), "") for column in COLUMNS]
    return "| " + " | ".join([f"`{op}`", LETTERS[by_name(op)], *cells, found.get("sizes", "")]) + " |"


def bases(ops: Iterable[str]) -> list[str]:
    """Names that the ops share but for their overloads."""
    return sorted({op.split(".")[1] for op in ops})


def page(found: Found) -> str:
    """The page for what was found of all operators."""
    ops = operators()
    counts = ["| dtype | " + " | ".join(STATES) + " |", "|---" * (len(STATES) + 1) + "|"]
    for column in COLUMNS:
        states = [found.get(op, {}).get(column) for op in ops]
        counts.append(f"| {column} | " + " | ".join(str(states.count(state)) for state in STATES) + " |")
    heads = ["op", "by name", *COLUMNS, "sizes"]
    lines = [
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(row(op, found.get(op, {})) for op in ops),
    ]
    return "\n".join([_HEAD.strip(), "", *counts, "", *lines, ""])


_HEAD = """
# Coverage

What compiles each op of ATen's core and of the Torch dialect (those that write to no argument), by dtype:

- **K**, a kernel of ours; **D**, ops that have one come in its place, by torch-mlir's decomposition, PyTorch's or ours;
  **L**, a call of a library such as LAPACK or PyTorch's random numbers; **P**, left to PyTorch, one op at a time
  (`fallback=False` makes that an error); **-**, not imported.
- A cell is the worst of some samples, in PyTorch's operator database, of an operator of the same name. It is empty
  where there are none: then *by name* says what the registries have. An op is **P** also where one sample asks for what
  no kernel takes.
- *sizes*: whether the first float32 sample lowers where all its sizes vary (but those of 0 and 1), some, or none.

A script writes this page in about a quarter of an hour, and `--filter` looks at a few operators and prints their rows:

```console
$ python -m torch_tvm.tools.coverage --output docs/coverage.md
$ python -m torch_tvm.tools.coverage --filter '^conv'
```
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Sample the operators and write the page, or print rows."""
    parser = argparse.ArgumentParser(prog="python -m torch_tvm.tools.coverage", description=__doc__)
    parser.add_argument("--filter", default="", help="regular expression over names of operators")
    parser.add_argument("--output", metavar="FILE", help="write the page; without it rows are printed")
    chosen = parser.parse_args(argv)
    ops = operators()
    wanted = [base for base in bases(ops) if re.search(chosen.filter, base)]
    if not wanted:
        parser.error("no operator matches")
    if chosen.filter and chosen.output:
        parser.error("--output writes all operators: leave --filter out")
    known = {info.aten_name for info in database()}
    found: Found = {}
    for base in wanted:
        if base in known:
            _join(found, sampled(base))
    if chosen.output:
        Path(chosen.output).write_text(page(found))
    else:
        print("\n".join(row(op, found.get(op, {})) for op in ops if op.split(".")[1] in wanted))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

__all__ = ["COLUMNS", "STATES", "bases", "by_name", "main", "operators", "page", "row", "sampled"]
