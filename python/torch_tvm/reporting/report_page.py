"""A report as one HTML page: no script, nothing loaded, light and dark, from a phone's width up.
All text is escaped.
"""

from __future__ import annotations

import json
import linecache
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from torch_tvm.reporting.findings import Findings, Kernel, in_bytes

if TYPE_CHECKING:
    from torch_tvm.profiling.benchmark import KernelTime

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5f6670; --line: #dfe2e7; --page: #fff; --card: #f6f7f9;
  --accent: #2457c5; --bar: #b9cdf6; --warn: #9a4b00; --code: #eef0f4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3ae; --line: #333a44; --page: #14171b;
  --card: #1c2026; --accent: #8fb0ff; --bar: #2f4b85; --warn: #ffb066; --code: #242a32; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p.note, .soft { color: var(--soft); } p.note { margin: .2rem 0 .8rem; font-size: .9rem; }
a { color: var(--accent); } nav { margin: .6rem 0 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem;
  font-size: .9rem; }
code, pre { font: .85em/1.45 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { background: var(--code); padding: .5rem .7rem; border-radius: 6px; margin: .3rem 0 .6rem; white-space: pre-wrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin-top: 1rem; }
.figures div { background: var(--card); border-radius: 8px; padding: .6rem .8rem; }
.figures b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: .85rem; }
details { border-top: 1px solid var(--line); } details:last-of-type { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; padding: .45rem .2rem; } summary:hover { background: var(--card); }
details > div { padding: 0 .2rem .8rem 1.1rem; } details details { margin-left: .8rem; }
.row { display: inline-grid; grid-template-columns: minmax(0, 1fr) 12.5rem 8rem; gap: .2rem 1rem;
  width: calc(100% - 1.4rem);
  vertical-align: top; }
.rule { color: var(--soft); font-size: .85rem; } .right { text-align: right; font-variant-numeric: tabular-nums; }
.share { display: block; position: relative; font-size: .85rem; padding: 0 .3rem; border-radius: 4px; text-align: right;
  font-variant-numeric: tabular-nums; align-self: start; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; } td.right, th.right { text-align: right; }
dl { display: grid; grid-template-columns: 7rem minmax(0, 1fr); gap: .25rem .8rem; margin: .2rem 0; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; } dd ul { margin: 0; padding-left: 1.1rem; }
.warn { color: var(--warn); } svg { width: 100%; height: auto; max-width: 46rem; display: block; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; } .row .right { font-size: .85rem; }
@media (max-width: 40rem) { body { font-size: 15px; } .row { grid-template-columns: minmax(0, 1fr) 5.5rem; }
  .row .rule { grid-column: 1 / -1; grid-row: 2; } dl { grid-template-columns: 1fr; gap: 0; } dt { margin-top: .4rem; }
  .deep { display: none; } svg text { font-size: 18px; } }
"""


def page(report: Findings, title: str = "") -> str:
    """The page of a report."""
    named = title or "compiled module"
    sections = [
        ("Kernels", _kernels(report)),
        ("Roofline", _roofline(report)),
        ("Modules", _modules(report)),
        ("Ops", _ops(report)),
        ("Library calls", _library_calls(report)),
        ("Ops in PyTorch", _fallbacks(report)),
        ("Memory", _memory(report)),
        ("Compile time", _times(report)),
    ]
    present = [(name, body) for name, body in sections if body]
    links = "".join(f'<a href="#{_id(name)}">{escape(name)}</a>' for name, _ in present)
    bodies = "".join(f'<section><h2 id="{_id(name)}">{escape(name)}</h2>{body}</section>' for name, body in present)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(named)}: torch-tvm</title><style>{_STYLE}</style></head><body>"
        f'<header><h1>{escape(named)}</h1><p class="note">{escape(_about(report))}</p>'
        f"{_figures(report)}<nav>{links}</nav></header>"
        f"<main>{bodies}</main></body></html>\n"
    )


def _id(name: str) -> str:
    return name.lower().replace(" ", "-")


def _about(report: Findings) -> str:
    way = f"captured by {report.frontend}, " if report.frontend else ""
    return f"{way}compiled by torch-tvm for {_target(report.target)}"


def _target(text: str) -> str:
    """TVM's JSON in words, where it is that: ``llvm, emeraldrapids, 2 cores``."""
    try:
        values = json.loads(text)
        named = [values["kind"], values.get("mcpu") or values.get("arch"), values.get("mtriple")]
        cores = values.get("num-cores")
    except (ValueError, KeyError, TypeError, AttributeError):
        return text
    return ", ".join([*(str(each) for each in named if each), *([f"{cores} cores"] if cores else [])])


def _figures(report: Findings) -> str:
    found = [
        (str(sum(kernel.origin.calls for kernel in report.kernels) or len(report.kernels)), "kernel calls"),
        (str(len(report.ops)), "ops"),
        (str(len(report.fallbacks)), "ops in PyTorch"),
        (f"{sum(report.seconds.values()):.2f} s", "to compile"),
    ]
    if report.benchmark is not None:
        found.insert(0, (f"{report.benchmark.seconds * 1e3:.3f} ms", "a call"))
    if report.memory.peak is not None:
        found.append((in_bytes(report.memory.peak), "of tensors at once"))
    return '<div class="figures">' + "".join(f"<div><b>{a}</b><span>{b}</span></div>" for a, b in found) + "</div>"


# -- kernels -----------------------------------------------------------------------------------------------


def _shares(report: Findings) -> dict[str, float]:
    """The part of the time in kernels that each takes; nothing before ``benchmark()``."""
    times = {k.name: k.seconds for k in report.benchmark.kernels} if report.benchmark else {}
    total = sum(times.values()) or 1.0
    return {name: seconds / total for name, seconds in times.items()}


def _kernels(report: Findings) -> str:
    shares = _shares(report)
    running = [kernel for kernel in report.kernels if kernel.origin.calls or not report.ops]
    packing = [kernel for kernel in report.kernels if not (kernel.origin.calls or not report.ops)]
    order = lambda kernel: (-shares.get(kernel.name, 0.0), min(kernel.origin.ops, default=1 << 30))
    rows = "".join(_kernel(report, kernel, shares.get(kernel.name)) for kernel in sorted(running, key=order))
    note = "By share of a call." if shares else "In the order of the program; compiled.benchmark(*args) adds times."
    if report.unexplained:
        note += f" Kernels have no lines: {report.unexplained}"
    more = ""
    if packing:
        names = ", ".join(f"<code>{escape(kernel.name)}</code>" for kernel in packing)
        more = f'<p class="note">Only at compile time, on weights: {names}</p>'
    return f'<p class="note">{escape(note)}</p>{rows}{more}'


def _kernel(report: Findings, kernel: Kernel, share: float | None) -> str:
    count = f" <span class=soft>× {kernel.origin.calls}</span>" if kernel.origin.calls > 1 else ""
    head = (
        f'<span class="row"><code>{escape(kernel.name)}</code><span class="rule">{escape(kernel.rule)}{count}</span>'
        f"{_bar(share, '' if share is None else f'{share:.1%}')}</span>"
    )
    rows: list[tuple[str, str]] = []
    places = _places(report, kernel)
    if places:
        rows.append(("lines" if kernel.origin.is_exact else "near lines", places))
    ops = [report.ops[index] for index in kernel.origin.ops if index < len(report.ops)]
    if ops:
        names: dict[str, int] = {}
        for op in ops:
            names[op.name] = names.get(op.name, 0) + 1
        links = ", ".join(
            f"<code>{escape(name)}</code>" + (f" × {times}" if times > 1 else "") for name, times in names.items()
        )
        rows.append(("computes" if kernel.origin.is_exact else "among", links))
    if kernel.origin.result:
        rows.append(("result", f"<code>{escape(kernel.origin.result)}</code>"))
    if kernel.origin.packed:
        items = [
            f"<code>{escape(name)}</code>: <code>{escape(before)}</code> → <code>{escape(after)}</code>"
            for name, before, after in kernel.origin.packed
        ]
        rows.append(("packed", _list(items)))
    rows += _measured(report, kernel)
    if kernel.refusals:
        items = [f"<b>{escape(rule)}</b>: {escape(reason)}" for rule, reason in kernel.refusals.items()]
        rows.append(("rules before", _list(items)))
    body = "".join(f"<dt>{escape(term)}</dt><dd>{text}</dd>" for term, text in rows)
    return (
        f'<details id="{escape(_kernel_id(kernel.name))}"><summary>{head}</summary><div><dl>{body}</dl></div></details>'
    )


def _kernel_id(name: str) -> str:
    return f"kernel-{name}"


def _bar(share: float | None, text: str) -> str:
    """Text before a bar whose length is the share."""
    if share is None:
        return '<span class="share"></span>'
    width = max(0.0, min(100.0, 100 * share))
    style = f"background:linear-gradient(90deg,var(--bar) {width:.1f}%,transparent {width:.1f}%)"
    return f'<span class="share" style="{style}">{escape(text)}</span>'


def _places(report: Findings, kernel: Kernel) -> str:
    """The user's lines, each with its text where the file is there."""
    parts = []
    for place in report.places(kernel)[:12]:
        file, _, line = place.partition(" (")[0].rpartition(":")
        source = linecache.getline(file, int(line)).strip() if line.isdigit() else ""
        parts.append(escape(place) + (f"<pre>{escape(source)}</pre>" if source else "<br>"))
    more = len(report.places(kernel)) - 12
    return "".join(parts) + (f"and {more} more" if more > 0 else "")


def _measured(report: Findings, kernel: Kernel) -> list[tuple[str, str]]:
    found = [each for each in report.benchmark.kernels if each.name == kernel.name] if report.benchmark else []
    if not found or report.benchmark is None:
        return []
    (time,) = found
    limits = report.benchmark.limits
    text = (
        f"{time.seconds * 1e6:.1f} µs, {time.gflops:.1f} GFLOP/s, {time.gigabytes:.1f} GB/s: "
        f"{time.of_limit(limits):.0%} of what the machine allows"
    )
    return [("measured", escape(text))]


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


# -- the roofline ------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640.0, 300.0, 52.0, 34.0


def _roofline(report: Findings) -> str:
    """Operations for a byte against operations a second, both in powers of ten, below what the machine can do."""
    kernels = [k for k in report.benchmark.kernels if k.operations and k.bytes] if report.benchmark else []
    if report.benchmark is None or not kernels:
        return ""
    limits = report.benchmark.limits
    ridge = limits.gflops / limits.gigabytes
    plot = _Plot(
        *_decades([*(kernel.operations / kernel.bytes for kernel in kernels), ridge]),
        *_decades([*(kernel.gflops for kernel in kernels), limits.gflops]),
    )
    start = max(10**plot.low_x, 10**plot.low_y / limits.gigabytes)
    corners = [(start, start * limits.gigabytes), (ridge, limits.gflops)]
    roof = " ".join(f"{plot.x(a):.1f},{plot.y(b):.1f}" for a, b in corners)
    shares = _shares(report)
    dots = "".join(plot.dot(kernel, shares.get(kernel.name, 0.0)) for kernel in kernels)
    return (
        '<p class="note">GFLOP/s over operations for a byte; a disc is a kernel, its size its share. The line is this '
        f"machine: {limits.gflops:.0f} GFLOP/s, {limits.gigabytes:.1f} GB/s from memory (caches are faster).</p>"
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="Roofline of the kernels">{plot.grid()}'
        f'<polyline points="{roof} {_WIDTH - 10},{plot.y(limits.gflops):.1f}" fill="none" stroke="var(--ink)" '
        f'stroke-width="1.5"/>{dots}'
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">operations for a byte</text></svg>'
    )


@dataclass(frozen=True)
class _Plot:
    """A plot with logarithmic axes, between powers of ten."""

    low_x: int
    high_x: int
    low_y: int
    high_y: int

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 10) * (math.log10(value) - self.low_x) / (self.high_x - self.low_x)

    def y(self, value: float) -> float:
        return 10 + (_HEIGHT - _BOTTOM - 10) * (self.high_y - math.log10(value)) / (self.high_y - self.low_y)

    def grid(self) -> str:
        lines = [
            f'<line x1="{self.x(10**d):.1f}" x2="{self.x(10**d):.1f}" y1="10" y2="{_HEIGHT - _BOTTOM}" '
            'stroke="var(--line)"/>'
            f'<text x="{self.x(10**d):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{10.0**d:g}</text>'
            for d in range(self.low_x, self.high_x + 1)
        ]
        lines += [
            f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{self.y(10**d):.1f}" y2="{self.y(10**d):.1f}" '
            'stroke="var(--line)"/>'
            f'<text x="{_LEFT - 6}" y="{self.y(10**d) + 4:.1f}" text-anchor="end">{10.0**d:g}</text>'
            for d in range(self.low_y, self.high_y + 1)
        ]
        return "".join(lines)

    def dot(self, kernel: KernelTime, share: float) -> str:
        x, y = self.x(kernel.operations / kernel.bytes), self.y(max(kernel.gflops, 10**self.low_y))
        return (
            f'<a href="#{escape(_kernel_id(kernel.name))}"><circle cx="{x:.1f}" cy="{y:.1f}" '
            f'r="{3 + 14 * math.sqrt(share):.1f}" fill="var(--accent)" fill-opacity=".45">'
            f"<title>{escape(kernel.name)}: {kernel.gflops:.1f} GFLOP/s</title></circle></a>"
        )


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten around all of the values."""
    known = [math.log10(value) for value in values if value > 0]
    low, high = math.floor(min(known)), math.ceil(max(known) + 0.05)
    return low, max(high, low + 1)


# -- modules and ops ---------------------------------------------------------------------------------------


@dataclass
class _Module:
    """A part of the model: its own ops, and the parts in it by name."""

    ops: list[int] = field(default_factory=list)
    parts: dict[str, _Module] = field(default_factory=dict)

    def all_ops(self) -> list[int]:
        return [*self.ops, *(op for part in self.parts.values() for op in part.all_ops())]


def _modules(report: Findings) -> str:
    root = _Module()
    for index, op in enumerate(report.ops):
        at = root
        for name in filter(None, op.scope.split(".")):
            at = at.parts.setdefault(name, _Module())
        at.ops.append(index)
    if not root.parts:
        return ""
    by_op = _kernels_of_ops(report)
    return "".join(_module(report, name, part, by_op) for name, part in root.parts.items())


def _module(report: Findings, name: str, module: _Module, by_op: Mapping[int, Sequence[str]]) -> str:
    ops = module.all_ops()
    kernels = dict.fromkeys(kernel for op in ops for kernel in by_op.get(op, ()))
    own = [report.ops[index] for index in module.ops]
    text = ", ".join(dict.fromkeys(op.name.removeprefix("aten.") for op in own))
    head = (
        f'<span class="row"><span><code>{escape(name)}</code> <span class="soft">{escape(text)}</span></span>'
        f'<span class="rule">{len(ops)} op{"s" if len(ops) != 1 else ""}</span>'
        f'<span class="right soft">{len(kernels)} kernel{"s" if len(kernels) != 1 else ""}</span></span>'
    )
    links = ", ".join(f'<a href="#{escape(_kernel_id(k))}"><code>{escape(k)}</code></a>' for k in kernels)
    inside = "".join(_module(report, each, part, by_op) for each, part in module.parts.items())
    body = inside or f"<p class=note>{links}</p>"
    return f"<details><summary>{head}</summary><div>{body}</div></details>"


def _kernels_of_ops(report: Findings) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for kernel in report.kernels:
        for index in kernel.origin.ops if kernel.origin.is_exact else ():
            found.setdefault(index, []).append(kernel.name)
    return found


def _ops(report: Findings) -> str:
    if not report.ops:
        return ""
    by_op = _kernels_of_ops(report)
    rows = []
    for index, op in enumerate(report.ops):
        kernels = ", ".join(
            f'<a href="#{escape(_kernel_id(name))}"><code>{escape(name)}</code></a>' for name in by_op.get(index, ())
        )
        short = f"{op.file.rpartition('/')[2]}:{op.line}" if op.file else ""
        rows.append(
            f"<tr><td class=right>{index}</td><td><code>{escape(op.name)}</code></td>"
            f"<td class=deep><code>{escape(op.result)}</code></td><td title='{escape(op.place)}'>{escape(short)}"
            f"{f'<br><span class=soft>{escape(op.scope)}</span>' if op.scope else ''}</td>"
            f"<td>{kernels or '<span class=soft>a view, or part of another</span>'}</td></tr>"
        )
    head = "<tr><th class=right>#</th><th>op</th><th class=deep>result</th><th>line, module</th><th>kernel</th></tr>"
    return (
        f"<details><summary>{len(rows)} ops of the Torch dialect, in order</summary><div class=wide>"
        f"<table>{head}{''.join(rows)}</table></div></details>"
    )


def _library_calls(report: Findings) -> str:
    rows = [(item.op, item.location, item.scope, item.library) for item in report.library_calls]
    return _table("library", rows) if rows else ""


def _fallbacks(report: Findings) -> str:
    if not report.fallbacks:
        return '<p class="note">None: all of the program is compiled.</p>'
    return _table("why", [(item.op, item.location, item.scope, item.reason) for item in report.fallbacks])


def _table(last: str, rows: Sequence[tuple[str, str, str, str]]) -> str:
    """Ops that are no kernels: name, line and module, and a reason."""
    cells = [
        f"<tr><td class=warn><code>{escape(op)}</code></td><td>{escape(location)}"
        f"{f'<br><span class=soft>{escape(scope)}</span>' if scope else ''}</td><td>{escape(text)}</td></tr>"
        for op, location, scope, text in rows
    ]
    head = f"<tr><th>op</th><th>line, module</th><th>{escape(last)}</th></tr>"
    return f"<div class=wide><table>{head}{''.join(cells)}</table></div>"


# -- memory and time ---------------------------------------------------------------------------------------


def _memory(report: Findings) -> str:
    memory = report.memory
    rows = [
        ("weights, as the program has them", memory.weights),
        ("weights, as kernels read them", memory.packed),
    ]
    rows += [
        ("tensors that one call makes", memory.made),
        ("of those, at the same time at most", memory.peak),
    ]
    cells = "".join(
        f"<tr><td>{escape(name)}</td><td class=right>{'depends on sizes' if size is None else in_bytes(size)}</td></tr>"
        for name, size in rows
    )
    reuse = ""
    if memory.made and memory.peak:
        reuse = (
            f'<p class="note">Memory that is free again is used {memory.made / memory.peak:.1f} times on average.</p>'
        )
    return f"<table>{cells}</table>{reuse}"


def _times(report: Findings) -> str:
    total = sum(report.seconds.values())
    return "".join(_time_rows(report.seconds.items(), total)) if total else ""


def _time_rows(items: Iterable[tuple[str, float]], total: float) -> Iterable[str]:
    yield "<table>"
    for name, seconds in items:
        yield f"<tr><td>{escape(name)}</td><td>{_bar(seconds / total, f'{seconds:.2f} s')}</td></tr>"
    yield "</table>"


__all__ = ["page"]
