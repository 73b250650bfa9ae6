"""The modules of the golden programs."""

import torch
from torch import nn


class Block(nn.Module):
    """A layer with a buffer, attributes that are no tensors, and a tensor that its code holds as a constant."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.register_buffer("scale", torch.arange(1.0, width + 1))
        self.labels = ["a", "b"]

    def forward(self, x):
        return torch.relu(self.linear(x)) * self.scale + torch.tensor([0.5, -1.5, 2.0])


class Model(nn.Module):
    """An embedding and two blocks, one of which stands at two places."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.blocks = nn.Sequential(Block(3), nn.Dropout(0.1), Block(3))
        self.again = self.blocks[0]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.again(self.blocks(self.embedding(ids))).sum(-1)

    @torch.jit.export
    def describe(self, x: torch.Tensor, names: dict[str, int], strict: bool = True) -> tuple[torch.Tensor, str]:
        return x + names["a"], "strict" if strict else "lenient: (x"
