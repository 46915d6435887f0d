"""Train a small CNN on real handwritten digits, compile it by two frontends, and compare with eager PyTorch.

Run it with ``python examples/digits.py``; it takes about a minute and needs scikit-learn for its data.
"""

import statistics
import time
import warnings

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import torch_tvm


class DigitNet(nn.Module):
    """Two convolutions and two linear layers: images ``[N, 1, 8, 8]`` to logits ``[N, 10]``."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return self.head(self.features(x))


def load():
    """The 1797 images of ``load_digits``, scaled to [0, 1]: train and held-out halves."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    return train_test_split(images, labels, test_size=0.3, random_state=0)


def train(model, images, labels, epochs=15):
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


def microseconds(function, image, runs=200):
    """Median time of one call on one image."""
    function(image)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function(image)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main():
    torch.manual_seed(0)
    train_images, test_images, train_labels, test_labels = load()
    model = train(DigitNet(), train_images, train_labels)
    batch = torch.export.Dim("batch", min=1, max=4096)

    from_fx = torch_tvm.import_fx(model, (test_images[:2],), dynamic_shapes=({0: batch},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch deprecates torch.jit.script
        scripted = torch.jit.script(model)
    from_script = torch_tvm.import_torchscript(scripted, (test_images[:1],))

    print("canonical Torch dialect, the first lines:")
    print("\n".join(line[:120] for line in from_fx.asm(elide=True).splitlines()[:16]))

    by_fx = torch_tvm.compile(from_fx)
    by_script = torch_tvm.compile(from_script)

    with torch.no_grad():
        eager = model(test_images).argmax(1)
        ours = by_fx(test_images).argmax(1)
        script = torch.cat([by_script(image.unsqueeze(0)) for image in test_images]).argmax(1)
        accuracy = lambda predicted: (predicted == test_labels).float().mean().item()
        print(f"\n{len(test_images)} held-out images")
        print(f"accuracy: eager {accuracy(eager):.4f}, FX {accuracy(ours):.4f}, TorchScript {accuracy(script):.4f}")
        disagreements = int((eager != ours).sum() + (eager != script).sum())
        print(f"images on which we disagree with eager: {disagreements}")
        one = test_images[:1]
        print(
            f"latency of one image: eager {microseconds(model, one):.0f} us, "
            f"FX {microseconds(by_fx, one):.0f} us, TorchScript {microseconds(by_script, one):.0f} us"
        )
    if disagreements:
        raise SystemExit("the compiled model disagrees with eager")


if __name__ == "__main__":
    main()
