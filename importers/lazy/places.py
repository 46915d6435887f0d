"""Which line of the user's program is running."""

from __future__ import annotations

import os
from types import FrameType

import torch

from torch_tvm.support.errors import SourceLocation

_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def is_users(file: str) -> bool:
    """Whether a source file is neither torch's nor an importer's."""
    return not file.startswith((_TORCH, _OURS, "<"))


def user_place(frame: FrameType | None, importer: str) -> SourceLocation:
    """File and line of the innermost frame that is neither torch's nor this importer's."""
    while frame is not None:
        file = frame.f_code.co_filename
        if is_users(file):
            return SourceLocation(file, frame.f_lineno, "", importer)
        frame = frame.f_back
    return SourceLocation(importer=importer)
