"""Runs random programs through the importers against eager PyTorch, and shrinks what fails.

    python test/e2e/fuzz/runner.py --programs 1000 --seed 0 --jobs 2

Workers are processes of their own: one that dies or hangs costs its program alone. Each failure is printed with its
seed, its kind and the smallest program that still shows it. ``--log FILE`` takes a line of JSON for each check; a run
that is started again with that file goes on where it stopped.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__" and "--worker" in sys.argv:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

FRONTENDS = ("fx", "torchscript", "lazy", "dynamo")
BAD = ("wrong", "dead", "hang", "bare", "bug")
_SECONDS = 120.0
_CALLS = 3


# -- one program -------------------------------------------------------------------------------------------


def load(program: Any, folder: Path) -> Any:
    """The module of a program, read from a file so that it can be scripted."""
    import importlib.util

    text = "import torch\nimport torch.nn.functional as F\n\n\n" + program.source()
    path = folder / f"program_{program.seed}_{time.monotonic_ns()}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Program().eval()


def _calls(program: Any) -> list[list[Any]]:
    """Arguments of three calls; those of the second have other sizes where sizes vary, and other strides in some."""
    import torch
    from programs import LAYOUTS

    calls = []
    for turn in range(_CALLS):
        generator = torch.Generator().manual_seed(program.seed * _CALLS + turn)
        growth = 2 if program.dynamic and turn == 1 else 0
        arguments = []
        for index, each in enumerate(program.inputs):
            shape = [n + growth if n == program.size else n for n in each.shape]
            if program.relaid and turn == 1:
                each = replace(each, layout=LAYOUTS[(program.seed + index) % len(LAYOUTS)])
            arguments.append(each.make(generator, shape))
        if program.same and len(arguments) > 1:
            arguments[1] = arguments[0]
        calls.append(arguments)
    return calls


def _compiled(program: Any, module: Any, frontend: str, arguments: list[Any]) -> Any:
    import torch

    import torch_tvm

    if frontend == "dynamo":
        torch._dynamo.reset()
        return torch.compile(module, backend="torch_tvm", dynamic=True if program.dynamic else None)
    shapes = None
    examples: Any = tuple(arguments)
    if program.dynamic and frontend == "fx":
        auto = torch.export.Dim.AUTO
        shapes = tuple({d: auto for d, n in enumerate(a.shape) if n == program.size} for a in arguments)
    if program.dynamic and frontend == "torchscript":
        examples = tuple(
            torch_tvm.TensorSpec(tuple(None if n == program.size else n for n in a.shape), a.dtype) for a in arguments
        )
    return torch_tvm.compile(module, examples, frontend=frontend, dynamic_shapes=shapes)


def check(program: Any, frontend: str, folder: Path) -> tuple[str, str]:
    """A verdict (``same``, ``refused``, ``raises`` or one of ``BAD``) and what it rests on."""
    import copy

    import torch

    from torch_tvm.support.errors import InternalError, TorchTvmError

    eager = load(program, folder)
    ours_module = copy.deepcopy(eager)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            compiled = _compiled(program, ours_module, frontend, _calls(program)[0])
        except InternalError as error:
            return "bug", str(error)
        except TorchTvmError as error:
            return "refused", str(error)
        except Exception as error:
            return "bare", f"{type(error).__name__}: {error}"
        for number in range(_CALLS):
            verdict = _call(program, frontend, folder, number, (eager, ours_module, compiled))
            if verdict is not None:
                return verdict
    for warning in caught:
        if "a bug of torch_tvm" in str(warning.message) or "GraphNotCompiled" in type(warning.category).__name__:
            return "bug", str(warning.message)
        if warning.category.__name__ == "GraphNotCompiled":
            return "refused", str(warning.message)
    return "same", ""


def _call(program: Any, frontend: str, folder: Path, number: int, modules: Any) -> tuple[str, str] | None:
    """The verdict on a call of eager and of ours, if there is one."""
    import torch

    from torch_tvm.support.errors import InternalError, TorchTvmError

    eager, ours_module, compiled = modules
    given, wanted_given = _calls(program)[number], _calls(program)[number]
    try:
        wanted = eager(*wanted_given)
    except Exception:
        return "raises", "eager raises"
    try:
        ours = compiled(*given)
    except InternalError as error:
        return "bug", str(error)
    except TorchTvmError as error:
        return _refused_call(program, frontend, folder, number, error)
    except torch._dynamo.exc.TorchRuntimeError as error:
        return "refused", f"{type(error).__name__}: {error}"  # by dynamo, before it has a graph
    except Exception as error:
        if _pytorch_differs(program, frontend, folder, number):
            return "raises", "TorchScript or dynamo differs"
        return "bare", f"call {number}: {type(error).__name__}: {error}"
    problem = _difference(wanted, ours, "result")
    problem = problem or _difference(tuple(wanted_given), tuple(given), "argument")
    problem = problem or _difference(*_states(frontend, eager, ours_module, compiled), "state")
    if problem and _rounding_decides(program, folder, number):
        return "raises", "the next number for an argument gives another result in eager, too"
    if problem and _pytorch_differs(program, frontend, folder, number):
        return "raises", "TorchScript or dynamo differs"
    return ("wrong", f"call {number}: {problem}") if problem else None


def _refused_call(program: Any, frontend: str, folder: Path, number: int, error: Exception) -> tuple[str, str] | None:
    """The verdict on a call that we refuse and eager does not."""
    if number == 1 and (program.dynamic or program.relaid):
        return ("same", "other sizes or strides refused") if program.state else None
    if re.search("other numbers for other strides|elements share memory", str(error)):
        return "refused", str(error)
    if _pytorch_differs(program, frontend, folder, number):
        return "raises", "TorchScript or dynamo differs"
    return ("same" if program.same else "bare"), f"call {number}: {type(error).__name__}: {error}"


def _states(frontend: str, eager: Any, ours_module: Any, compiled: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The state of eager and of ours, in one order."""
    if frontend == "dynamo":
        return tuple(eager.buffers()), tuple(ours_module.buffers())
    live = compiled.state_dict()
    named = {name: buffer for name, buffer in eager.named_buffers() if name in live}
    return tuple(named.values()), tuple(live[name] for name in named)


def _pytorch_differs(program: Any, frontend: str, folder: Path, turn: int) -> bool:
    """Whether PyTorch's own script of the program, or dynamo without a compiler, gives something else than the program.

    TorchScript drops writes through views that no schema tells and takes ``0 // x`` for a number; dynamo's guards
    fail for arguments that are unsqueezed in place.
    """
    import torch

    if frontend not in ("torchscript", "dynamo"):
        return False
    module, other = load(program, folder), load(program, folder)
    torch._dynamo.reset()
    dynamic = True if program.dynamic else None
    run: Any = torch.jit.script(other) if frontend == "torchscript" else None
    run = run or torch.compile(other, backend="eager", dynamic=dynamic)
    buffers = lambda each: tuple(value for _, value in sorted(each.named_buffers()))
    for earlier in range(turn + 1):
        given, wanted_given = _calls(program)[earlier], _calls(program)[earlier]
        wanted = module(*wanted_given)
        try:
            found = run(*given)
        except Exception:
            return True
    differs = _difference(wanted, found, "") or _difference(tuple(wanted_given), tuple(given), "")
    return bool(differs or _difference(buffers(module), buffers(run if frontend == "torchscript" else other), ""))


def _rounding_decides(program: Any, folder: Path, turn: int) -> bool:
    """Whether eager PyTorch gives another result for arguments that differ by a rounding error: where the least of
    equal numbers is, say.
    """
    import torch

    for direction in (-1, 1):
        module, other = load(program, folder), load(program, folder)
        for earlier in range(turn + 1):
            plain, moved = _calls(program)[earlier], _calls(program)[earlier]
            for index, x in enumerate(moved):
                if x.is_floating_point():
                    is_narrowed = x.dtype == torch.float64 and any(word in program.source() for word in _NARROWING)
                    kind = torch.float32 if is_narrowed else x.dtype  # what passes float32 is as good as that
                    moved[index] = x * (1 + direction * 2 * torch.finfo(kind).eps)
            if program.same and len(moved) > 1:
                moved[1] = moved[0]
            try:
                problem = _difference(module(*plain), other(*moved), "")
            except Exception:
                return False
        if problem:
            return True
    return False


_NARROWING = (".float()", "torch.float32")
_TOLERANCE = {"torch.float64": 1e-7, "torch.float32": 2e-4, "torch.float16": 3e-2, "torch.bfloat16": 2e-1}


def _difference(wanted: Any, ours: Any, what: str) -> str:
    import torch

    if len(wanted) != len(ours):
        return f"{len(ours)} {what}s instead of {len(wanted)}"
    for index, (a, b) in enumerate(zip(wanted, ours, strict=True)):
        if type(a) is not type(b):
            return f"{what} {index}: {type(b).__name__} instead of {type(a).__name__}"
        if not isinstance(a, torch.Tensor):
            if a != b:
                return f"{what} {index}: {b} instead of {a}"
            continue
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{what} {index}: {b.dtype}{list(b.shape)} instead of {a.dtype}{list(a.shape)}"
        if a.is_complex():
            a, b = (torch.view_as_real(each.resolve_conj()) for each in (a, b))
        if not a.is_floating_point():
            if not torch.equal(a, b):
                return f"{what} {index}: {_shown(b, a)}"
            continue
        x, y = a.double(), b.double()
        special = ~torch.isfinite(x)
        if not torch.equal(special, ~torch.isfinite(y)) or not torch.equal(
            x[special].nan_to_num(), y[special].nan_to_num()
        ):
            return f"{what} {index}: {_shown(b, a)}"
        scale = x[~special].abs().max().item() if (~special).any() else 0.0
        error = (x - y)[~special].abs().max().item() if (~special).any() else 0.0
        if error > _TOLERANCE[str(a.dtype)] * (1 + scale):
            return f"{what} {index}: off by {error:.3g} at a scale of {scale:.3g}: {_shown(b, a)}"
    return ""


def _shown(ours: Any, wanted: Any) -> str:
    return f"{str(ours.flatten()[:8].tolist())[:150]} instead of {str(wanted.flatten()[:8].tolist())[:150]}"


# -- shrinking ---------------------------------------------------------------------------------------------


def smaller(program: Any) -> Iterator[Any]:
    """Programs with less: a line, a result, an argument's layout, a size, the state."""
    if len(program.results) > 1:
        for result in program.results:
            yield replace(program, results=(result,))
    for line in reversed(program.lines):
        yield program.without(line)
    used = set(program.results).union(*[line.uses for line in program.lines], *[[line.makes] for line in program.lines])
    unused = [each for each in program.inputs if each.name not in used]
    if unused and len(unused) < len(program.inputs) and not program.same:
        yield replace(program, inputs=tuple(each for each in program.inputs if each not in unused))
    idle = [each for each in program.state if f"self.{each.name}" not in used]
    if idle:
        yield replace(program, state=tuple(each for each in program.state if each not in idle))
    if program.dynamic:
        yield replace(program, dynamic=False)
    if program.relaid:
        yield replace(program, relaid=False)
    for index, each in enumerate(program.inputs):
        if each.layout != "dense":
            plain = replace(each, layout="dense")
            yield replace(program, inputs=(*program.inputs[:index], plain, *program.inputs[index + 1 :]))


def is_valid(program: Any, folder: Path) -> bool:
    import torch

    if not program.results or not all(r for r in program.results):
        return False
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(program, folder)(*_calls(program)[0])
    except Exception:
        return False
    return True


def _what(verdict: str, text: str) -> str:
    """The kind of a failure, by which two programs show the same."""
    head = re.split(r"\d+|:", text, maxsplit=2)
    return verdict if verdict in ("wrong", "dead", "hang") else f"{verdict} {' '.join(head[:2])[:40]}"


# -- worker and parent -------------------------------------------------------------------------------------


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of an IRModule that keeps its last results: importers that agree share what comes after them."""
    import tvm_ffi

    kept: list[tuple[int, Any, Any]] = []

    @functools.wraps(function)
    def call(mod: Any, *args: Any, **kwargs: Any) -> Any:
        key = tvm_ffi.structural_hash(mod)
        for known, other, result in kept:
            if known == key and tvm_ffi.structural_equal(other, mod):
                return result
        result = function(mod, *args, **kwargs)
        kept.append((key, mod, result))
        del kept[:-6]
        return result

    return call


_OPTIMISED = 4
"""One program in so many goes through all of LLVM's optimisations, which take as long as all before them."""


def _save_time(optimises: Callable[[], bool]) -> None:
    """Compile what several importers agree on once; less garbage collection; no measuring of dynamo's guards."""
    import torch._dynamo.guards
    import tvm

    import torch_tvm.codegen.llvm
    import torch_tvm.driver.pipeline

    in_full = torch_tvm.codegen.llvm._machine_code

    def machine_code(part: Any, target: Any, is_native: bool) -> Any:
        quick = target if optimises() else tvm.target.Target({**target.export(), "opt-level": 0})
        return in_full(part, quick, is_native)

    torch_tvm.codegen.llvm._machine_code = machine_code

    torch_tvm.driver.pipeline.schedule = remembered(torch_tvm.driver.pipeline.schedule)
    torch_tvm.driver.pipeline.build = remembered(torch_tvm.driver.pipeline.build)
    torch._dynamo.guards.profile_guard_manager = lambda *_: 0.0
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def work() -> None:
    """Read ``{"program": …}`` lines, write a verdict for each."""
    import torch
    from programs import make

    torch.set_num_threads(1)
    import logging

    logging.getLogger("torch").setLevel(logging.CRITICAL)
    seed = 0
    _save_time(lambda: seed % _OPTIMISED == 0)
    folder = Path(tempfile.mkdtemp(prefix="torch_tvm_fuzz_"))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        task = json.loads(line)
        program = decode(task["program"]) if "program" in task else make(task["seed"])
        seed = program.seed
        if not is_valid(program, folder):
            answer: tuple[str, str] = ("raises", "")
        else:
            answer = check(program, task["frontend"], folder)
        for path in folder.glob("*.py"):
            path.unlink()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def encode(program: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(program)


def decode(data: dict[str, Any]) -> Any:
    from programs import Input, Line, Program

    inputs = tuple(Input(**{**each, "shape": tuple(each["shape"])}) for each in data["inputs"])
    state = tuple(Input(**{**each, "shape": tuple(each["shape"])}) for each in data["state"])
    lines = tuple(Line(**each) for each in data["lines"])
    return Program(**{**data, "inputs": inputs, "state": state, "lines": lines, "results": tuple(data["results"])})


class Worker:
    """A process that checks programs; it is started anew when it dies, and after many programs."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.done = 0

    def ask(self, task: dict[str, Any]) -> tuple[str, str]:
        if self.process is None or self.done > 400:
            self.close()
            command = [sys.executable, __file__, "--worker"]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self.done = 0
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        self.done += 1
        timer = threading.Timer(_SECONDS, process.kill)
        started = time.monotonic()
        timer.start()
        try:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if line:
            verdict, text = json.loads(line)
            return verdict, text
        self.process = None
        code = process.wait()
        is_slow = time.monotonic() - started >= _SECONDS
        return ("hang", f"not done after {_SECONDS:.0f} s") if is_slow else ("dead", f"exit code {code}")

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def shrink(worker: Worker, program: Any, frontend: str, verdict: str, text: str, tries: int = 60) -> tuple[Any, str]:
    """The smallest program found that fails in the same way, and how it fails."""
    wanted = _what(verdict, text)
    progress = True
    while progress and tries > 0:
        progress = False
        for candidate in smaller(program):
            tries -= 1
            if tries < 0:
                break
            found, why = worker.ask({"program": encode(candidate), "frontend": frontend})
            if found in BAD and _what(found, why) == wanted:
                program, text, progress = candidate, why, True
                break
    return program, text


class _Findings:
    """What the checks of several threads found: verdicts counted, a text for each failure, a line of ``log`` each."""

    def __init__(self, log: Path | None) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._log = log
        self._lock = threading.Lock()
        done = [json.loads(line) for line in log.read_text().splitlines()] if log and log.exists() else []
        self.known = {(each["seed"], each["frontend"]) for each in done}

    def add(self, seed: int, frontend: str, verdict: str, text: str, seconds: float, report: str) -> None:
        with self._lock:
            if self._log:
                line = {"seed": seed, "frontend": frontend, "verdict": verdict, "text": text, "seconds": seconds}
                with self._log.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            self.counts[f"{frontend} {verdict}"] += 1
            self.counts[verdict] += 1
            if verdict == "refused":
                self.counts[f"refused: {_reason(text)}"] += 1
            if report:
                self.failures.append(report)
                print(report, flush=True)

    def print_progress(self, seed: int) -> None:
        with self._lock:
            print(f"# seed {seed}: {dict(self.counts)}", flush=True)


def _check_seed(worker: Worker, seed: int, frontend: str, shrinks: bool, findings: _Findings) -> None:
    """Check the program of a seed by one frontend, and make it small where it fails."""
    from programs import make

    started = time.monotonic()
    verdict, text = worker.ask({"seed": seed, "frontend": frontend})
    seconds = round(time.monotonic() - started, 3)
    report = ""
    if verdict in BAD:
        program = make(seed)
        if shrinks:
            program, text = shrink(worker, program, frontend, verdict, text)
        report = f"== {verdict} seed {seed} {frontend}{_flags(program)}: {text[:600]}\n{_shown_inputs(program)}"
        report += program.source()
    findings.add(seed, frontend, verdict, text, seconds, report)


def run(
    seeds: range,
    frontends: tuple[str, ...],
    jobs: int = 1,
    shrinks: bool = True,
    log: Path | None = None,
) -> tuple[Counter[str], list[str]]:
    """Verdicts counted, and a text for each failure; what ``log`` has already is not checked again."""
    tasks: queue.Queue[int] = queue.Queue()
    for seed in seeds:
        tasks.put(seed)
    findings = _Findings(log)

    def loop() -> None:
        worker = Worker()
        while True:
            try:
                seed = tasks.get_nowait()
            except queue.Empty:
                break
            for frontend in frontends:
                if (seed, frontend) not in findings.known:
                    _check_seed(worker, seed, frontend, shrinks, findings)
            if seed % 50 == 49:
                findings.print_progress(seed)
        worker.close()

    threads = [threading.Thread(target=loop) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return findings.counts, findings.failures


def _reason(text: str) -> str:
    """A refusal without its file and line, names and numbers."""
    return re.sub(r"\S+\.py:\d+: |'[^']*'|[\d\[\](), ]+", " ", text.split("\n")[0]).strip()[:90]


def _flags(program: Any) -> str:
    flags = [name for name in ("same", "relaid") if getattr(program, name)]
    flags += [f"dynamic {program.size}"] if program.dynamic else []
    return "".join(f" {flag}" for flag in flags)


def _shown_inputs(program: Any) -> str:
    return f"# {', '.join(f'{i.name}: {i.dtype}{list(i.shape)} {i.layout}' for i in program.inputs)}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="the first seed; the others follow it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--frontends", default=",".join(FRONTENDS))
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--log", type=Path, help="a line of JSON for each check; checks that it has are left out")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work()
        return 0
    first = given.seed if given.seed is not None else int(time.time()) * 1000
    print(f"seeds {first} to {first + given.programs - 1}", flush=True)
    seeds = range(first, first + given.programs)
    counts, failures = run(seeds, tuple(given.frontends.split(",")), given.jobs, not given.no_shrink, given.log)
    for name, count in sorted(counts.items()):
        print(f"{count:6} {name}")
    return int(bool(failures))


if __name__ == "__main__":
    raise SystemExit(main())
