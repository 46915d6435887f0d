"""Why ``torch.export`` refused, in the user's terms."""

from __future__ import annotations

import re
import traceback

from torch_tvm.importers.tracing.data_dependence import DependsOnData
from torch_tvm.importers.tracing.seeding import SEEDED, SEEDED_ADVICE
from torch_tvm.importers.user_code import is_users
from torch_tvm.support.errors import ImportFailed, SourceLocation

GENERATOR = "a random generator cannot be captured"
DATA = "what a program assigns to .data cannot be captured"


def export_failure(scope: str, error: Exception) -> ImportFailed:
    """An :class:`ImportFailed` at the last frame of the traceback that is the user's own; ``scope``
    names the program.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    location = SourceLocation(importer="fx")
    if own and frames[-1] is not None:
        location = SourceLocation(own[-1].filename, own[-1].lineno or 0, scope, "fx")
    text = str(error).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    problem = "\n    ".join([f"torch.export refused: {lines[0]}", *_dimensions(lines[1:])])
    kind = DependsOnData if _depends_on_data(error, text) else ImportFailed
    return kind(problem, location=location, advice=_advice(error, text))


def _depends_on_data(error: Exception, text: str) -> bool:
    kinds = ("GuardOnDataDependentSymNode", "DataDependentOutputException", "DynamicOutputShapeException")
    return "data-dependent" in text or type(error).__name__ in kinds


def _dimensions(lines: list[str]) -> list[str]:
    """What torch says of each dimension, and the changes that it suggests: a line each."""
    if "Suggested fixes:" not in lines:
        return [line for line in lines if line.startswith("- ")]
    start = lines.index("Suggested fixes:")
    fixes = [line for line in lines[start + 1 :] if re.match(r"\w+ = ", line)]
    return [line for line in lines[:start] if line.startswith("- ")] + ["Suggested fixes:", *fixes]


def _advice(error: Exception, text: str) -> str:
    kind = type(error).__name__
    if text == SEEDED:
        return SEEDED_ADVICE
    if text == GENERATOR:
        return "pass the random tensor as an input, or draw from PyTorch's own generator"
    if text == DATA:
        return "write the values with copy_, or use frontend='lazy' or torch.compile"
    if _depends_on_data(error, text):
        return "rewrite the branch with torch.cond, or compile the scripted module (frontend='torchscript')"
    if isinstance(error, TypeError) and "argument" in text:
        return "pass example_args that fit the module's forward"
    if "Suggested fixes:" in text or "Constraints violated" in text or kind == "UserError":
        return "change dynamic_shapes as the message says, or compile with frontend='torchscript'"
    others = "try frontend='torchscript', or torch.compile(model, backend='torch_tvm'), which takes partial graphs"
    # What an operation, or the user's own code, raises.
    if type(error) in (RuntimeError, ValueError, IndexError):
        return f"run the program on these arguments in PyTorch; if it does, {others}"
    return others
