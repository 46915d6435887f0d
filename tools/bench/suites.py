"""Which models of the zoo belong to a suite."""

from __future__ import annotations

import re

from torch_tvm.support.errors import InvalidInput
from torch_tvm.tools.zoo import MODELS

_CPU = (
    "resnet18", "resnet50", "vgg11", "mobilenet_v2", "mobilenet_v3", "efficientnet", "shufflenet", "densenet",
    "inception", "unet_large", "convnext", "swin", "vit_b16", "bert_base", "gpt2_small", "llama_block",
    "gpt2_decode", "mlp", "lenet", "lstm", "gru", "encoder_layer", "elementwise_chain", "reduction_chain",
)  # fmt: skip

_WIDE = (
    "resnext", "regnet", "squeezenet", "alexnet", "deeplab", "diffusion_unet", "style_transfer", "super_resolution",
    "generator", "wavenet", "conformer", "video_resnet", "pointnet", "recommender", "mixer", "radiance_field",
    "distilbert", "t5", "detector", "attention_unet",
)  # fmt: skip

_TRAINED = ("resnet18", "vit", "bert", "gpt2")

SUITES: dict[str, tuple[str, ...]] = {
    "cpu": _CPU,
    "wide": _WIDE,
    "training": _TRAINED,
    "small": tuple(name for name, model in MODELS.items() if model.small or name.endswith("_small")),
}


def models_of(suite: str, pattern: str | None) -> list[str]:
    """The models of a suite whose whole name matches ``pattern``; with a pattern, all of the zoo is searched when
    the suite has no match. Raises :class:`InvalidInput` when nothing matches."""
    names = SUITES[suite]
    if pattern is None:
        return list(names)
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InvalidInput(f"{pattern!r} is no regular expression: {error}", subject="--models") from error
    found = [name for name in names if expression.fullmatch(name)]
    found = found or [name for name in MODELS if expression.fullmatch(name)]
    if not found:
        raise InvalidInput(
            f"no model matches {pattern!r}", subject="--models", advice=f"known: {', '.join(sorted(MODELS))}"
        )
    return found


__all__ = ["SUITES", "models_of"]
