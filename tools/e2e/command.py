"""Programs by every frontend, compiled and compared with eager PyTorch.

  torch-tvm-e2e --filter conv2d --frontend fx,lazy --verbose
  torch-tvm-e2e --suite models --exclude 'vit|bert' --jobs 4 --junit results.xml

Each case runs in a process that may crash or hang. The exit code is 0 where all is as expected, 1 where a case is not,
2 for a command line that cannot be meant.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.files import check_writable, write_whole
from torch_tvm.tools.command_line import Parser, amount, fail, seed
from torch_tvm.tools.e2e.case import CASES, CONFIGS, FRONTENDS, Case, checked_choice

SUITES = ("ours", "opinfo", "models")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen cases, print what failed and a table."""
    try:
        return _run(make_parser().parse_args(argv))
    except InvalidInput as error:
        fail("torch-tvm-e2e", error, is_json=False)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = Parser(
        prog="torch-tvm-e2e",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--filter", default="", metavar="REGEX", help="cases whose name or ops match, in any case")
    parser.add_argument("--exclude", default="", metavar="REGEX", help="cases to leave out, likewise")
    parser.add_argument("--suite", default="ours", help=f"of {', '.join(SUITES)}; default: ours")
    parser.add_argument("--frontend", default=",".join(FRONTENDS), help="default: all, separated by commas")
    parser.add_argument("--config", default="compiled", help=f"of {', '.join(CONFIGS)}; default: compiled")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="processes; default: one a core")
    parser.add_argument("--timeout", type=amount, default=180.0, metavar="SECONDS", help="for one case")
    parser.add_argument("--seed", type=seed, default=0, help="of random arguments")
    parser.add_argument("--no-fallback", action="store_true", help="an op without a kernel is a failure")
    parser.add_argument(
        "--verbose", action="store_true", help="every case, and of those that fail the IR and the command"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    parser.add_argument("--json", metavar="FILE", help="write the results")
    parser.add_argument("--junit", metavar="FILE", help="write the results as JUnit's XML")
    return parser


def all_cases(suites: Sequence[str], seed: int) -> list[Case]:
    """The cases of these suites."""
    from torch_tvm.tools.e2e.models import model_cases
    from torch_tvm.tools.e2e.rows import row_cases

    found: list[Case] = []
    if "ours" in suites:
        from torch_tvm.tools.e2e import programs

        programs.load()
        found += [*row_cases(seed), *CASES.values(), *model_cases(small=True)]
    if "opinfo" in suites:
        from torch_tvm.tools.e2e.operators import operator_cases

        found += operator_cases(seed)
    if "models" in suites:
        found += model_cases(small=False)
    return found


def _run(arguments: argparse.Namespace) -> int:
    frontends = checked_choice(arguments.frontend, FRONTENDS, "--frontend")
    configs = checked_choice(arguments.config, CONFIGS, "--config")
    suites = checked_choice(arguments.suite, SUITES, "--suite")
    wanted, unwanted = _regex(arguments.filter, "--filter"), _regex(arguments.exclude or r"(?!)", "--exclude")
    for number, option in ((arguments.jobs, "--jobs"), (arguments.timeout, "--timeout")):
        if number < 0 or (option == "--timeout" and number == 0):
            raise InvalidInput(f"expected a positive number, got {number}", subject=option)
    check_writable(arguments.json, "--json")
    check_writable(arguments.junit, "--junit")
    chosen = [
        case
        for case in all_cases(suites, arguments.seed)
        if _matches(case, wanted) and not _matches(case, unwanted) and set(case.frontends) & set(frontends)
    ]
    if not chosen:
        raise InvalidInput("no case matches", advice="torch-tvm-e2e --list prints their names")
    if arguments.list:
        for case in chosen:
            print(case.name, *(via for via in case.frontends if via in frontends))
        sys.stdout.flush()
        return 0
    return _run_cases(chosen, frontends, configs, arguments)


def _run_cases(
    chosen: Sequence[Case], frontends: Sequence[str], configs: Sequence[str], arguments: argparse.Namespace
) -> int:
    from torch_tvm.tools.e2e.pool import Run, Settings, run_all
    from torch_tvm.tools.e2e.report import Progress, Summary, label
    from torch_tvm.tools.e2e.running import GOOD

    runs = [
        Run(case, frontend, config)
        for config in configs
        for frontend in frontends
        for case in chosen
        if frontend in case.frontends
    ]
    extra = [*(["--seed", str(arguments.seed)] if arguments.seed else [])]
    extra += ["--no-fallback"] if arguments.no_fallback else []
    summary, progress = Summary("torch-tvm-e2e", extra), Progress(len(runs))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = min(arguments.jobs or cores, len(runs))
    settings = Settings(arguments.timeout, 1 if jobs > 1 else cores, not arguments.no_fallback, arguments.verbose)
    _import_early()
    code = 0
    try:
        for run, result in run_all(runs, jobs, settings):
            summary.results.append((run, result))
            progress.print(summary.lines(run, result, verbose=arguments.verbose))
            progress.advance(label(run), result.verdict in GOOD)
    except KeyboardInterrupt:
        code = 130
    progress.clear()
    print(summary.table())
    if arguments.json:
        write_whole(arguments.json, summary.json().encode())
    if arguments.junit:
        write_whole(arguments.junit, summary.junit())
    return code or int(bool(summary.failed))


def _import_early() -> None:
    """Import what every process needs, once. Nothing is run: threads do not live on in forked processes."""
    import torch_tvm.driver.compiler
    import torch_tvm.dynamo  # noqa: F401


def _regex(text: str, option: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise InvalidInput(f"'{text}' is no regular expression: {error}", subject=option) from error


def _matches(case: Case, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.search(case.name) or any(pattern.search(word) for word in case.words.split()))


__all__ = ["all_cases", "main"]
