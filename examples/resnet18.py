"""ResNet-18 on a real photograph: the same class as eager PyTorch, and how long each takes.

The weights are random (no download), made so that classes differ: batch-norm statistics come from the
photograph itself. The photograph is one that ships with scikit-learn.
"""

import statistics
import time

import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

import torch_tvm
from torch_tvm.tools.zoo.convnets import resnet


def photograph():
    """``flower.jpg`` of scikit-learn as ``[1, 3, 224, 224]``, normalised as ImageNet models expect."""
    pixels = torch.from_numpy(np.array(load_sample_image("flower.jpg"))).permute(2, 0, 1).float().unsqueeze(0) / 255
    side = min(pixels.shape[-2:])
    top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
    square = F.interpolate(pixels[..., top : top + side, left : left + side], 224, mode="bilinear")
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (square - mean) / std


def interleaved(first, second, image, runs=15):
    """Median times in milliseconds, the two taking turns."""
    times = ([], [])
    for _ in range(runs):
        for function, record in zip((first, second), times, strict=True):
            start = time.perf_counter()
            function(image)
            record.append(time.perf_counter() - start)
    return [statistics.median(record[2:]) * 1e3 for record in times]


def main():
    torch.manual_seed(0)
    image = photograph()
    model = resnet(18)
    with torch.no_grad():
        model.train()
        for _ in range(5):
            model(torch.cat([image, image.flip(-1), image * 0.8]))
        model.eval()
        start = time.perf_counter()
        compiled = torch_tvm.compile(model, (image,))
        print(f"compiled in {time.perf_counter() - start:.1f} s")
        eager, ours = model(image), compiled(image)
        print(f"top-1: eager {eager.argmax().item()}, torch-tvm {ours.argmax().item()}")
        print(f"largest difference of a logit: {(eager - ours).abs().max().item():.2e}")
        eager_ms, our_ms = interleaved(model, compiled, image)
        print(f"latency: eager {eager_ms:.1f} ms, torch-tvm {our_ms:.1f} ms ({eager_ms / our_ms:.2f}x)")
    if eager.argmax() != ours.argmax():
        raise SystemExit("top-1 differs from eager")


if __name__ == "__main__":
    main()
