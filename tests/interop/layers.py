"""Judges graphs of plain lists of layers against torch, and quantized graphs against wide ones, in ONNX Runtime.

`make`: {"folder"}: networks of torch's modules with random weights, each in a folder of its own with its config and
inputs and outputs; answers {"networks": [folder, ...]}. `judge`: {"folder", "onnx"}: answers {"onnx", "worst", "faults"}.
`quantized`: {"wide", "narrow", "weights", "form"}: runs both on the same tokens, and takes the narrow weights out of the
file: answers {"form", "cosine", "weights", "bytes", "faults"}.
"""

import json
import os
import sys

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from torch import nn

ort.set_default_logger_severity(3)

ARGUMENTS = {
    "Conv": ["stride", "padding", "dilation", "groups"],
    "ConvTranspose": ["stride", "padding", "dilation", "groups", "output_padding"],
    "MaxPool": ["kernel_size", "stride", "padding", "dilation", "ceil_mode"],
    "AvgPool": ["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"],
    "AdaptiveAvgPool": ["output_size"],
    "BatchNorm": ["eps"],
    "LayerNorm": ["eps"],
    "RMSNorm": ["eps"],
    "GroupNorm": ["eps", "num_groups"],
    "InstanceNorm": ["eps"],
    "GELU": ["approximate"],
    "LeakyReLU": ["negative_slope"],
    "ELU": ["alpha"],
    "Softmax": ["dim"],
    "LogSoftmax": ["dim"],
    "Flatten": ["start_dim"],
    "Dropout": ["p"],
}


def described(network):
    """The layers of a Sequential as a config has them: its modules' own names and arguments."""
    layers = []
    for name, module in network.named_children():
        kind = type(module).__name__
        layer = {"type": kind}
        for key in ARGUMENTS.get(kind.rstrip("d").rstrip("123"), []):
            value = getattr(module, key)
            layer[key] = list(value) if isinstance(value, tuple) else value
        if list(module.parameters()) or list(module.buffers()) or "InstanceNorm" in kind:
            layer["name"] = name
        layers.append(layer)
    return layers


def networks():
    image = lambda *size: torch.randn(*size)
    yield "mlp", nn.Sequential(nn.Linear(7, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 5, bias=False),
                               nn.GELU(approximate="tanh"), nn.RMSNorm(5, eps=1e-5), nn.Softmax(-1)), image(3, 7), ["batch", 7]
    yield "image", nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(8, 8, (3, 1), padding=(2, 0), dilation=(2, 1), groups=4, bias=False), nn.GroupNorm(2, 8), nn.SiLU(),
        nn.AvgPool2d(2, ceil_mode=True), nn.InstanceNorm2d(8), nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(8, 4), nn.LogSoftmax(-1)), image(2, 3, 33, 30), ["batch", 3, "height", "width"]
    yield "fixed", nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.Sigmoid(), nn.AvgPool2d((2, 3), stride=(2, 1), padding=(1, 1), count_include_pad=False),
        nn.MaxPool2d(2, ceil_mode=True), nn.ELU(0.7), nn.Flatten(), nn.Linear(4 * 7 * 12, 6)), image(2, 1, 28, 28), ["n", 1, 28, 28]
    yield "signal", nn.Sequential(
        nn.Conv1d(2, 6, 7, stride=3, padding=3), nn.BatchNorm1d(6), nn.Tanh(), nn.ConvTranspose1d(6, 2, 4, stride=3, padding=1,
        output_padding=2), nn.InstanceNorm1d(2, affine=True), nn.Identity()), image(2, 2, 50), ["batch", 2, "samples"]
    yield "volume", nn.Sequential(
        nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2), nn.ReLU(), nn.MaxPool3d(2), nn.ConvTranspose3d(2, 1, 2, stride=2, groups=1),
        nn.AvgPool3d(2)), image(1, 1, 8, 10, 12), ["batch", 1, "depth", "height", "width"]
    yield "words", nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 6), nn.ReLU(), nn.Flatten(2)), torch.randint(0, 11, (2, 5)), ["batch", "length"]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(12, 3)

    def forward(self, x, y):
        inner = torch.relu(self.a(x))
        outer = self.b(inner) + x
        return self.c(torch.cat([outer, y], 1)), inner.mean(-1)


RESIDUAL = {
    "inputs": [{"name": "x", "shape": ["batch", 6]}, {"name": "y", "shape": ["batch", 6]}],
    "layers": [
        {"type": "Linear", "name": "a"},
        {"type": "ReLU", "as": "inner"},
        {"type": "Linear", "name": "b"},
        {"type": "Add", "with": "x"},
        {"type": "Concat", "with": "y", "dim": 1},
        {"type": "Linear", "name": "c", "as": "joined"},
        {"type": "Mean", "from": "inner", "dim": -1},
    ],
    "outputs": [{"name": "scores", "from": "joined"}, {"name": "mean"}],
}


def keep(folder, module, config, inputs, outputs):
    os.makedirs(folder)
    save_file({n: t.contiguous() for n, t in module.state_dict().items() if t.is_floating_point()},
              os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump({"model_type": "layers", **config}, file)
    np.savez(os.path.join(folder, "inputs.npz"), **{n: t.numpy() for n, t in inputs.items()})
    np.savez(os.path.join(folder, "outputs.npz"), **{n: t.numpy() for n, t in outputs.items()})
    return folder


def make(task):
    torch.manual_seed(0)
    made = []
    with torch.no_grad():
        for name, network, x, shape in networks():
            for module in network.modules():
                if hasattr(module, "running_mean") and module.running_mean is not None:
                    module.running_mean.normal_()
                    module.running_var.uniform_(0.5, 2)
            for parameter in network.parameters():
                parameter.normal_(0.1, 0.4)
            y = network.eval()(x)
            entry = {"name": "x", "shape": shape, "dtype": "float" if x.is_floating_point() else "int"}
            config = {"inputs": [entry], "layers": described(network)}
            made.append(keep(os.path.join(task["folder"], name), network, config, {"x": x}, {"output": y}))
        network, x, y = Residual().eval(), torch.randn(4, 6), torch.randn(4, 6)
        scores, mean = network(x, y)
        made.append(keep(os.path.join(task["folder"], "residual"), network, RESIDUAL, {"x": x, "y": y},
                         {"scores": scores, "mean": mean}))
    return {"networks": made, "faults": []}


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def judge(task):
    faults = []
    onnx.checker.check_model(task["onnx"], full_check=True)
    inputs = dict(np.load(os.path.join(task["folder"], "inputs.npz")))
    wanted = dict(np.load(os.path.join(task["folder"], "outputs.npz")))
    ran = session(task["onnx"])
    names = [o.name for o in ran.get_outputs()]
    if names != list(wanted):
        faults.append(f"outputs {names}, and not {list(wanted)}")
    worst = 0.0
    for name, found in zip(names, ran.run(None, inputs)):
        expected = wanted[name]
        if found.shape != expected.shape:
            faults.append(f"{name}: {found.shape}, and not {expected.shape}")
            continue
        apart = float(np.abs(found - expected).max())
        worst = max(worst, apart)
        if not apart <= 1e-4 * max(1.0, float(np.abs(expected).max())):
            faults.append(f"{name} is {apart} apart")
    return {"onnx": task["onnx"], "worst": worst, "faults": faults}


def cosine(a, b):
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def restored(tensors, name):
    """A weight as the codes and scales of a file have it, and the size of a step at each element."""
    scale = tensors[f"{name}.scale"].astype(np.float32)
    if f"{name}.int8" in tensors:
        codes = tensors[f"{name}.int8"].astype(np.float32)
        return codes * scale[:, None], np.broadcast_to(np.abs(scale)[:, None], codes.shape)
    packed = tensors[f"{name}.int4"]
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1).astype(np.float32) - 8
    steps = np.broadcast_to(np.abs(scale)[:, :, None], codes.shape)
    rows = packed.shape[0]
    return (codes * scale[:, :, None]).reshape(rows, -1), steps.reshape(rows, -1)


def quantized(task):
    faults = []
    onnx.checker.check_model(task["narrow"], full_check=True)
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(task["narrow"]).graph.initializer}
    wide = load_file(task["weights"])
    names = [n.removesuffix(".scale") for n in tensors if n.endswith(".scale")]
    for name in names:
        weight = wide[name].float().numpy()
        weight = weight.T if task.get("turned") else weight
        back, step = restored(tensors, name)
        back, step = back[:, : weight.shape[1]], step[:, : weight.shape[1]]
        # The side of a block's scale that has one code less is cut off by up to a whole step.
        allowed = step * (1.001 if task["form"].startswith("int4") else 0.501)
        if not (np.abs(back - weight) <= allowed + 1e-7).all():
            faults.append(f"{name} comes back {np.abs(back - weight).max()} apart")
        if name in tensors:
            faults.append(f"{name} is there twice")
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 1000, (3, 24), dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids),
            "position_ids": np.arange(24, dtype=np.int64)[None].repeat(3, 0)}
    outputs = []
    for path in (task["wide"], task["narrow"]):
        ran = session(path)
        outputs.append(ran.run(None, {i.name: feed[i.name] for i in ran.get_inputs()})[0])
    return {"form": task["form"], "cosine": cosine(*outputs), "weights": len(names),
            "bytes": os.path.getsize(task["narrow"]), "faults": faults}


if __name__ == "__main__":
    mode = {"make": make, "judge": judge, "quantized": quantized}[sys.argv[1]]
    for line in sys.stdin:
        print(json.dumps(mode(json.loads(line))), flush=True)
