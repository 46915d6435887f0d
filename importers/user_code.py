"""Which source files, and which line of a running program, are the user's own."""

from __future__ import annotations

import os
from types import FrameType

import torch

from torch_tvm.support.errors import SourceLocation

TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def is_users(file: str) -> bool:
    """Whether a source file is neither torch's nor an importer's, nor made up; ``""`` is none."""
    return bool(file) and not file.startswith((TORCH, OURS, "<"))


def user_place(frame: FrameType | None, importer: str) -> SourceLocation:
    """File and line of the innermost frame that runs the user's code."""
    while frame is not None:
        file = frame.f_code.co_filename
        if is_users(file):
            return SourceLocation(file, frame.f_lineno, "", importer)
        frame = frame.f_back
    return SourceLocation(importer=importer)


__all__ = ["OURS", "TORCH", "is_users", "user_place"]
