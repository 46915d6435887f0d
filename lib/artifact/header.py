"""The C header of an exported library: its signature, and the few functions that a C program needs."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.runtime.code import Code


def c_header(name: str, code: Code, weights: int) -> str:
    """The text of ``name.h``; ``weights`` are that many tensors in the file of weights."""
    convention = code.convention
    identifier = re.sub(r"\W", "_", name, flags=re.ASCII)
    identifier = identifier if re.match(r"[A-Za-z_]", identifier) else f"model_{identifier}"
    results = ", ".join(dtype_name(kind) for kind in convention.results if isinstance(kind, torch.dtype))
    arguments = ", ".join(f"{_plain(argument.name)}: {_plain(str(argument))}" for argument in convention.arguments)
    values = {
        "NAME": identifier,
        "UPPER": identifier.upper(),
        "SIGNATURE": f"({arguments}) -> ({results})",
        "INPUTS": len(convention.arguments),
        "OUTPUTS": len(convention.results),
        "WEIGHTS": weights,
        "SINGLE": int(code.single),
        "AS_LIST": int(code.lifted),
    }
    text = Path(__file__).with_name("model.h.in").read_text()
    return re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), text)


def _plain(text: str) -> str:
    """A text that cannot end the comment that it stands in."""
    return text.replace("*/", "* /").replace("\n", " ")


__all__ = ["c_header"]
