"""Writes the golden files of the safetensors format, each with a dump of what must be read from it.

python make.py FOLDER

The `safetensors` package writes all but the files that `by_hand` makes: valid files of a kind that its own writer
never writes. Each of those is opened with the package once more before it is kept.
"""

import hashlib
import json
import os
import struct
import sys

import numpy
import torch
from safetensors import deserialize, safe_open
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.abspath(sys.argv[1])
sys.path.insert(0, os.path.dirname(HERE))
import dump  # noqa: E402


def path_of(name):
    path = os.path.join(OUT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def load(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}


def check(name, tensors):
    """Holds what the package reads against what was saved, and writes the dump."""
    want, found = dump.dump(tensors), dump.dump(load(path_of(name)))
    for entries in (want, found):
        for entry in entries.values():
            entry.pop("storage", None)
    if want != found:
        raise SystemExit(f"{name}: safetensors reads something else than was saved")
    # The dump is of what is read: no two tensors of this format share bytes.
    dump.write(path_of(name), {k: t.clone() for k, t in load(path_of(name)).items()})


def save(name, tensors, metadata=None):
    save_file(tensors, path_of(name), metadata)
    check(name, tensors)


def every_dtype():
    """A vector of each dtype that the package takes from torch, with extremes and special values."""
    floats = torch.tensor([0.0, -0.0, 1.0, -2.5, 0.1, 65504.0, 1e-8, float("inf"), -float("inf"), float("nan")])
    tensors = {"bool": torch.tensor([True, False, True])}
    for bits in (8, 16, 32, 64):
        for kind in ("uint", "int"):
            dtype = getattr(torch, f"{kind}{bits}")
            info = torch.iinfo(dtype)
            tensors[f"{kind}{bits}"] = torch.tensor([0, 1, 2, info.max, info.min], dtype=dtype)
    for name in ("float16", "bfloat16", "float32", "float64"):
        tensors[name] = floats.to(getattr(torch, name))
    tensors["complex64"] = torch.complex(floats, floats.flip(0))
    every_byte = torch.arange(256).to(torch.uint8)
    for name in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"):
        tensors[f"float8_{name}"] = every_byte.clone().view(getattr(torch, f"float8_{name}"))
    tensors["float4_e2m1fn_x2"] = every_byte.reshape(32, 8).clone().view(torch.float4_e2m1fn_x2)
    return tensors


def by_hand(name, header, data, tensors, pad=0):
    """A file from its header's text and its data."""
    text = header if isinstance(header, str) else json.dumps(header, ensure_ascii=False, separators=(",", ":"))
    text = text.encode() + b" " * pad
    with open(path_of(name), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    if tensors is not None:
        check(name, tensors)


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def main():
    torch.manual_seed(20)
    save("dtypes.safetensors", every_dtype())
    shapes = {
        "scalar": torch.tensor(3.25),
        "empty": torch.empty(0),
        "empty_middle": torch.empty(3, 0, 2, dtype=torch.int16),
        "one": torch.ones(1, 1, 1),
        "deep": torch.randn(1, 2, 1, 3, 1, 2, 1),
    }
    save("shapes.safetensors", shapes)
    note = {"format": "pt", "author": "naïve 模型", "quote\"d": "line\nbreak", "empty": "", "json": '{"a": [1]}'}
    save("metadata.safetensors", {"weight": torch.randn(2, 3)}, note)
    save("no_tensors.safetensors", {}, {"format": "pt"})
    names = {n: torch.full((2,), float(i)) for i, n in enumerate(["a b", "naïve 模型 \U0001f3cb", "x" * 300, "q\"\\\n", "0"])}
    save("names.safetensors", names)

    arrays = {"weight": numpy.arange(6, dtype="<f4").reshape(2, 3), "ids": numpy.array([3, 1, 2], dtype="<i8")}
    save_numpy(arrays, path_of("from_numpy.safetensors"))
    check("from_numpy.safetensors", {k: torch.from_numpy(a) for k, a in arrays.items()})

    a, b = torch.arange(3, dtype=torch.float32), torch.tensor([7], dtype=torch.uint8)
    in_order = {"b": entry("U8", [1], 0, 1), "a": entry("F32", [3], 1, 13)}
    by_hand("misaligned.safetensors", in_order, dump.raw(b) + dump.raw(a), {"a": a, "b": b}, pad=3)
    reordered = {"a": entry("F32", [3], 1, 13), "b": entry("U8", [1], 0, 1)}
    by_hand("header_order.safetensors", reordered, dump.raw(b) + dump.raw(a), {"a": a, "b": b})
    spaced = json.dumps({"__metadata__": {}, "a": entry("F32", [3], 0, 12)}, indent=1)
    by_hand("spaced_header.safetensors", spaced, dump.raw(a), {"a": a}, pad=40)
    sixes = {"e2m3": entry("F6_E2M3", [2, 4], 0, 6), "e3m2": entry("F6_E3M2", [4], 6, 9)}
    by_hand("six_bits.safetensors", sixes, bytes(range(9)), None)
    write_sixes(sixes)

    weight_map, total, whole = {}, 0, {}
    for part in range(3):
        tensors = {f"layer.{part}.weight": torch.randn(8, 4), f"layer.{part}.bias": torch.randn(8).bfloat16()}
        file = f"model-{part + 1:05}-of-00003.safetensors"
        save(f"sharded/{file}", tensors, {"format": "pt"})
        weight_map.update({key: file for key in tensors})
        total += sum(t.nbytes for t in tensors.values())
        whole.update(tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    with open(path_of("sharded/model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump(index, file, indent=2)
    dump.write(path_of("sharded/model.safetensors.index.json"), whole)


def write_sixes(header):
    """torch has no six-bit type: the dump is taken of the bytes that the package's own `deserialize` gives."""
    entries = {}
    with open(path_of("six_bits.safetensors"), "rb") as file:
        for name, view in deserialize(file.read()):
            data = bytes(view["data"])
            if [view["dtype"], list(view["shape"])] != [header[name]["dtype"], header[name]["shape"]]:
                raise SystemExit(f"six_bits.safetensors: {name} is read as {view['dtype']} {view['shape']}")
            digest = hashlib.sha256(data).hexdigest()
            entries[name] = {"dtype": view["dtype"], "shape": list(view["shape"]), "sha256": digest, "hex": data.hex()}
    with open(path_of("six_bits.safetensors.json"), "w", encoding="utf-8") as file:
        json.dump(entries, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    main()
