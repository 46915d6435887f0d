"""The table of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from torch_tvm.tools.zoo import (
    branching,
    chains,
    convnets,
    decoders,
    grouped,
    hierarchical,
    images,
    mobile,
    pyramids,
    recurrent,
    signals,
    transformers,
)


@dataclass(frozen=True)
class Model:
    """How to make a model and its inputs.

    ``module`` makes the module, ``inputs`` the example arguments for a batch size; ``batch_axis`` is where
    each argument has its batch dimension. ``small`` models fit quick tests.
    """

    name: str
    module: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Any, ...]]
    small: bool = False
    scriptable: bool = True
    batch_axis: int = 0


def _image(channels: int, size: int) -> Callable[[int], tuple[Any, ...]]:
    return lambda batch: (torch.randn(batch, channels, size, size),)


def _tokens(vocabulary: int, length: int) -> Callable[[int], tuple[Any, ...]]:
    return lambda batch: (torch.randint(0, vocabulary, (batch, length)),)


def _sequence(length: int, features: int) -> Callable[[int], tuple[Any, ...]]:
    return lambda batch: (torch.randn(batch, length, features),)


def _decoding(layers: int, heads: int, past: int, size: int) -> Callable[[int], tuple[Any, ...]]:
    """A token and caches of ``past`` keys and values."""

    def inputs(batch: int) -> tuple[Any, ...]:
        cache = (batch, layers, heads, past, size)
        return torch.randint(0, 1000, (batch, 1)), torch.randn(cache), torch.randn(cache)

    return inputs


def _tensors(count: int, rows: int, columns: int) -> Callable[[int], tuple[Any, ...]]:
    return lambda batch: tuple(torch.randn(batch, rows, columns) for _ in range(count))


def _image_and_step(size: int) -> Callable[[int], tuple[Any, ...]]:
    return lambda batch: (torch.randn(batch, 4, size, size), torch.randn(batch, 64))


def _categories(features: int, tables: int, rows: int) -> Callable[[int], tuple[Any, ...]]:
    return lambda batch: (torch.randn(batch, features), torch.randint(0, rows, (batch, tables)))


def _two_texts(vocabulary: int, length: int) -> Callable[[int], tuple[Any, ...]]:
    return lambda batch: tuple(torch.randint(0, vocabulary, (batch, length)) for _ in range(2))


_TABLE = [
    Model("mlp", lambda: convnets.mlp(64, 128, 10), lambda b: (torch.randn(b, 64),), small=True),
    Model("lenet", convnets.LeNet, _image(1, 28), small=True),
    Model("resnet18", lambda: convnets.resnet(18), _image(3, 224)),
    Model("resnet50", lambda: convnets.resnet(50), _image(3, 224)),
    Model("mobilenet_v2", convnets.MobileNetV2, _image(3, 224)),
    Model("vgg11", convnets.VGG11, _image(3, 224)),
    Model("unet", lambda: convnets.UNet(3, 2, 16), _image(3, 64), small=True),
    Model("lstm", lambda: recurrent.Recurrent("lstm", 32, 64), _sequence(16, 32), small=True),
    Model("gru", lambda: recurrent.Recurrent("gru", 32, 64), _sequence(16, 32), small=True),
    Model("encoder_layer", lambda: transformers.encoder_layer(64, 4), _sequence(16, 64), small=True),
    Model("bert", lambda: transformers.bert(2), _tokens(1000, 32), scriptable=False),
    Model("bert_base", lambda: transformers.bert(12, full=True), _tokens(1000, 128), scriptable=False),
    Model("gpt2", lambda: transformers.gpt2(2), _tokens(1000, 32), scriptable=False),
    Model("gpt2_small", lambda: transformers.gpt2(12, full=True), _tokens(1000, 128), scriptable=False),
    Model("vit", lambda: transformers.ViT(32, 8, 64, 4, 2), _image(3, 32), small=True),
    Model("vit_b16", lambda: transformers.ViT(224, 16, 768, 12, 12), _image(3, 224)),
    Model("resnet18_small", lambda: convnets.resnet(18), _image(3, 64), small=True),
    Model("resnet50_small", lambda: convnets.resnet(50), _image(3, 64), small=True),
    Model("mobilenet_v2_small", convnets.MobileNetV2, _image(3, 64), small=True),
    Model("vgg11_small", lambda: convnets.VGG11(image=64), _image(3, 64), small=True),
    Model("unet_large", lambda: convnets.UNet(3, 2, 32), _image(3, 256)),
    Model("mobilenet_v3", mobile.mobilenet_v3, _image(3, 224)),
    Model("mobilenet_v3_small", lambda: mobile.mobilenet_v3(6), _image(3, 64), small=True),
    Model("efficientnet", mobile.efficientnet, _image(3, 224)),
    Model("efficientnet_small", lambda: mobile.efficientnet(3), _image(3, 64), small=True),
    Model("shufflenet", mobile.shufflenet, _image(3, 224)),
    Model("shufflenet_small", lambda: mobile.shufflenet((2, 1)), _image(3, 64), small=True),
    Model("densenet", branching.DenseNet, _image(3, 224)),
    Model("densenet_small", lambda: branching.DenseNet((2, 2), 16), _image(3, 64), small=True),
    Model("inception", branching.Inception, _image(3, 224)),
    Model("inception_small", lambda: branching.Inception(1), _image(3, 64), small=True),
    Model("convnext", hierarchical.ConvNext, _image(3, 224)),
    Model("convnext_small", lambda: hierarchical.ConvNext((1, 1), (32, 64)), _image(3, 32), small=True),
    Model("swin", hierarchical.Swin, _image(3, 224)),
    Model("swin_small", lambda: hierarchical.Swin(32, 32, (2, 2), 2, 4), _image(3, 32), small=True),
    Model("gpt2_decode", lambda: decoders.DecodeStep(12, 768, 12), _decoding(12, 12, 128, 64)),
    Model("gpt2_decode_small", lambda: decoders.DecodeStep(2, 64, 4), _decoding(2, 4, 16, 16), small=True),
    Model("llama_block", lambda: decoders.LlamaBlock(1024, 16, 4, 2816), _sequence(128, 1024)),
    Model("llama_block_small", lambda: decoders.LlamaBlock(64, 4, 2, 96), _sequence(16, 64), small=True),
    Model("elementwise_chain", chains.ElementwiseChain, _tensors(2, 4096, 2048)),
    Model("elementwise_chain_small", chains.ElementwiseChain, _tensors(2, 33, 65), small=True),
    Model("reduction_chain", chains.ReductionChain, _tensors(1, 4096, 2048)),
    Model("reduction_chain_small", chains.ReductionChain, _tensors(1, 33, 65), small=True),
    Model("resnext", grouped.resnext, _image(3, 224)),
    Model("resnext_small", lambda: grouped.resnext((1, 1)), _image(3, 32), small=True),
    Model("regnet", grouped.regnet, _image(3, 224)),
    Model("squeezenet", grouped.squeezenet, _image(3, 224)),
    Model("alexnet", grouped.alexnet, _image(3, 224)),
    Model("deeplab", images.DeepLab, _image(3, 256)),
    Model("diffusion_unet", images.DiffusionUNet, _image_and_step(64)),
    Model("diffusion_unet_small", lambda: images.DiffusionUNet(32), _image_and_step(8), small=True),
    Model("style_transfer", images.style_transfer, _image(3, 256)),
    Model("super_resolution", images.super_resolution, _image(1, 224)),
    Model("generator", images.generator, _image(100, 1)),
    Model("wavenet", signals.WaveNet, _sequence(1, 4096)),
    Model("wavenet_small", lambda: signals.WaveNet(16, 3), _sequence(1, 64), small=True),
    Model("conformer", signals.conformer, _sequence(200, 256)),
    Model("conformer_small", lambda: signals.conformer(32, 1), _sequence(20, 32), small=True),
    Model("video_resnet", signals.VideoResNet, lambda b: (torch.randn(b, 3, 8, 112, 112),)),
    Model("pointnet", signals.PointNet, _sequence(3, 1024)),
    Model("recommender", signals.Recommender, _categories(13, 26, 10000)),
    Model("mixer", signals.mixer, _sequence(196, 512)),
    Model("radiance_field", signals.RadianceField, lambda b: (torch.randn(4096 * b, 3),)),
    Model("detector", pyramids.Detector, _image(3, 320)),
    Model("detector_small", lambda: pyramids.Detector(8, 12), _image(3, 64), small=True),
    Model("attention_unet", pyramids.AttentionUNet, _image(3, 128)),
    Model("attention_unet_small", lambda: pyramids.AttentionUNet(8), _image(3, 32), small=True),
    Model("distilbert", lambda: transformers.bert(6, full=True), _tokens(1000, 64), scriptable=False),
    Model("t5", transformers.t5, _two_texts(1000, 64), scriptable=False),
]

MODELS: dict[str, Model] = {model.name: model for model in _TABLE}


def build(name: str, batch: int = 1, *, seed: int = 0) -> tuple[nn.Module, tuple[Any, ...]]:
    """The module of ``MODELS[name]`` in eval mode, and its example arguments for ``batch``."""
    model = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = model.module().eval()
        _randomise_statistics(module)
        return module, model.inputs(batch)


def _randomise_statistics(module: nn.Module) -> None:
    """Running statistics as training leaves them, not the zeros and ones they start from."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.running_mean.normal_(0.0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0.0, 0.2)
