"""What came of the cases: a line and a bar while they run, a table, JSON and JUnit at the end."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from torch_tvm.tools.e2e.pool import Run
from torch_tvm.tools.e2e.running import GOOD, VERDICTS, Result

_BAR = 24
_COLUMN = {"pass": "passed", "xfail": "expected", "skip": "skipped"}


@dataclass
class Summary:
    """Results so far; ``prefix`` is the program name in the commands that it prints."""

    prefix: str
    extra: Sequence[str] = ()
    results: list[tuple[Run, Result]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def failed(self) -> list[tuple[Run, Result]]:
        return [(run, result) for run, result in self.results if result.verdict not in GOOD]

    def command(self, run: Run) -> str:
        """The one command that runs a case alone."""
        pattern = "^" + "".join("\\" + c if c in ".[]()+*?^$|\\" else c for c in run.case.name) + "$"
        words = ["--suite", run.case.suite, "--filter", pattern, "--frontend", run.frontend]
        words += ["--config", run.config, "--verbose", *self.extra]
        return f"{self.prefix} {shlex.join(words)}"

    def lines(self, run: Run, result: Result, *, verbose: bool) -> list[str]:
        """What is printed when a case is done: everything about one that failed, else nothing or one line."""
        is_good = result.verdict in GOOD
        if is_good and not verbose:
            return []
        text = result.text if verbose or not is_good else ""
        first, *rest = text.splitlines() or [""]
        head = f"{result.verdict:<6} {label(run)} ({result.seconds:.1f} s)" + (f": {first}" if first else "")
        lines = [head, *(f"       {line}" for line in rest)]
        if not is_good and verbose:
            lines += [f"       | {line}" for line in result.ir.splitlines()]
            lines.append(f"       alone: {self.command(run)}")
        return lines

    def table(self) -> str:
        """Verdicts by suite, frontend and configuration; then the command of each that failed."""
        counts: dict[tuple[str, str, str], Counter[str]] = {}
        for run, result in self.results:
            key = (run.case.suite, run.frontend, run.config)
            counts.setdefault(key, Counter())[result.verdict] += 1
        used = [v for v in VERDICTS if v == "pass" or any(count[v] for count in counts.values())]
        rows = [["suite", "frontend", "config", "cases", *(_COLUMN.get(v, v) for v in used)]]
        for key, count in counts.items():
            rows.append([*key, str(count.total()), *(str(count[v]) for v in used)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if self.failed:
            lines += ["", f"{len(self.failed)} failed; each alone:"]
            lines += [f"  {self.command(run)}" for run, _ in self.failed]
        else:
            lines += ["", f"all {len(self.results)} as expected, in {time.monotonic() - self.started:.0f} s"]
        return "\n".join(lines)

    def json(self) -> str:
        """An object for each case, in the order in which they ended."""
        rows = [
            {
                "suite": run.case.suite,
                "name": run.case.name,
                "frontend": run.frontend,
                "config": run.config,
                "verdict": result.verdict,
                "reason": result.text,
                "seconds": round(result.seconds, 3),
                "command": self.command(run),
            }
            for run, result in self.results
        ]
        return json.dumps({"failed": len(self.failed), "cases": rows}, indent=1)

    def junit(self) -> bytes:
        """The results as JUnit's XML, which CI services read."""
        root = ElementTree.Element("testsuites")
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name="torch-tvm-e2e",
            tests=str(len(self.results)),
            failures=str(len(self.failed)),
            skipped=str(sum(result.verdict in ("skip", "xfail") for _, result in self.results)),
            time=f"{sum(result.seconds for _, result in self.results):.3f}",
        )
        for run, result in self.results:
            name = f"{run.case.suite}.{run.frontend}.{run.config}"
            item = ElementTree.SubElement(
                suite, "testcase", classname=name, name=run.case.name, time=f"{result.seconds:.3f}"
            )
            text = _printable(result.text)
            if result.verdict in ("skip", "xfail"):
                ElementTree.SubElement(item, "skipped", message=text)
            elif result.verdict not in GOOD:
                problem = ElementTree.SubElement(item, "failure", type=result.verdict, message=text)
                problem.text = f"{text}\n{self.command(run)}"
        return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def label(run: Run) -> str:
    """``conv2d by fx, compiled``."""
    return f"{run.case.name} by {run.frontend}, {run.config}"


def _printable(text: str) -> str:
    """Text without the characters that XML cannot have."""
    return "".join(c if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" else "?" for c in text)


class Progress:
    """A bar on a terminal's last line, nothing elsewhere; ``print`` writes above it."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._failed = total, 0, 0
        self._is_shown = sys.stderr.isatty()

    def advance(self, what: str, is_good: bool) -> None:
        self._done += 1
        self._failed += not is_good
        if self._is_shown:
            filled = _BAR * self._done // max(1, self._total)
            bar = "█" * filled + "·" * (_BAR - filled)
            failed = f", {self._failed} failed" if self._failed else ""
            print(
                f"\r\033[K{bar} {self._done}/{self._total}{failed}  {what[:50]}",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def print(self, lines: Sequence[str]) -> None:
        if lines:
            self.clear()
            print("\n".join(lines), flush=True)

    def clear(self) -> None:
        if self._is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


__all__ = ["Progress", "Summary", "label"]
