"""Training in several processes: gradients are averaged by PyTorch, forward and backward run compiled.

    torchrun --nproc-per-node 2 examples/distributed.py

Prints the loss, and how far the weights are from those that eager PyTorch finds on the same batches.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.head = nn.Linear(8 * 16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(F.max_pool2d(torch.relu(self.conv(images)), 2).flatten(1))


def batches(rank: int, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every process has its own part of the data."""
    from sklearn.datasets import load_digits

    images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    mine = order[rank :: dist.get_world_size()]
    return [(images[part], labels[part]) for part in mine.split(64)[:count]]


def train(model: nn.Module, data: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for images, labels in data:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    return loss.item()


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    eager = Digits()
    model = Digits()
    model.load_state_dict(tree_map(torch.clone, eager.state_dict()))
    data = batches(dist.get_rank(), 12)

    train(DistributedDataParallel(eager), data)
    loss = train(torch.compile(DistributedDataParallel(model), backend="torch_tvm"), data)

    pairs = zip(model.parameters(), eager.parameters(), strict=True)
    apart = max((ours - theirs).abs().max().item() for ours, theirs in pairs)
    if dist.get_rank() == 0:
        print(f"loss {loss:.3f}, weights {'agree' if apart < 1e-4 else f'are {apart:.1e} apart'}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
