"""Every decomposition and folding that torch-mlir does for us, against eager over PyTorch's operator database."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KNOWN = {
    "var_mean": "the mean of infinities in half precision is summed in another order",
    "nn.functional.fractional_max_pool2d": "draws its regions",
    "nn.functional.fractional_max_pool3d": "draws its regions",
    "native_batch_norm": "training updates the statistics that it is given",
    "special.laguerre_polynomial_l": "PyTorch itself counts to an order of 2**31",
    "nn.functional.pad.replicate_negative": "PyTorch itself refuses the padding that torch-mlir infers",
}
"""What differs, and is no fault of a decomposition."""


def sweep(**request: Any) -> list[str]:
    """The calls that are eager's after import and no longer after canonicalisation or compilation."""
    worker = [sys.executable, str(Path(__file__).with_name("op_database.py"))]
    done = subprocess.run(worker, input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    wrong = []
    for line in done.stdout.splitlines():
        result: dict[str, Any] = json.loads(line)
        for found in result["differ"]:
            if not found["stage"].startswith("import") and result["op"] not in KNOWN:
                wrong.append(f"{result['op']} {found['dtype']} {found['kind']}, {found['stage']}: {found['found']}")
    return wrong


DECOMPOSED = [
    "nn.functional.binary_cross_entropy_with_logits", "nn.functional.kl_div", "renorm", "nn.functional.rms_norm",
    "nn.functional.poisson_nll_loss",
    "remainder", "sub", "rsub", "addcdiv", "nn.functional.huber_loss", "nn.functional.cosine_similarity",
]  # fmt: skip


def test_some_operators() -> None:
    seed = random.randrange(1 << 20)
    wrong = sweep(names=DECOMPOSED, draw=10, seed=seed, count=1, compiles=False, dtypes=["float32", "int64"])
    assert not wrong, "\n".join([f"seed {seed}", *wrong])


@pytest.mark.e2e
@pytest.mark.parametrize("part", range(40))
def test_all_operators(part: int) -> None:
    wrong = sweep(part=(part, 40), seed=part, count=4, compiles=True, dtypes=None)
    assert not wrong, "\n".join(wrong)
