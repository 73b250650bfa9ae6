"""The classes that the golden files mention by name; a reader does not have them."""

import torch
from torch import nn


class Net(nn.Module):
    """A custom module: an embedding tied to the output layer, a batch norm with its buffers, a buffer of its own."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(4, 2, bias=False), nn.Linear(4, 3)])
        self.out = nn.Linear(4, 6, bias=False)
        self.out.weight = self.embed.weight
        self.scale = nn.Parameter(torch.full((), 0.5))
        self.register_buffer("positions", torch.arange(5))
        self.register_buffer("absent", None)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.out(self.body(self.embed(x))) * self.scale


class Cell(nn.Module):
    """A module for TorchScript, with operators alone in its forward."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2))
        self.bias = nn.Parameter(torch.randn(3).double())
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x: torch.Tensor):
        return x @ self.weight.t() + self.bias.float()


class Pair(nn.Module):
    """Two cells that share a parameter, beside a half-precision buffer."""

    def __init__(self):
        super().__init__()
        self.first = Cell()
        self.second = Cell()
        self.second.weight = self.first.weight
        self.register_buffer("halves", torch.randn(2, 2).half())

    def forward(self, x: torch.Tensor):
        return self.first(x) + self.second(x)


class Labelled(torch.Tensor):
    """A subclass that holds its data itself and carries attributes beside them."""


class Scaled(torch.Tensor):
    """A wrapper subclass: no data of its own, two tensors in its state."""

    WRAPPER = True

    @staticmethod
    def __new__(cls, values, scale):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=torch.float32)

    def __init__(self, values, scale):
        self.values = values
        self.scale = scale

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].values, args[0].scale)
        raise NotImplementedError(f"{func} on Scaled")


class Arguments:
    """What a trainer saves of its settings: an object whose class a reader lacks."""

    def __init__(self):
        self.output_dir = "out"
        self.learning_rate = 5e-5
        self.seed = 42
        self.betas = (0.9, 0.999)
