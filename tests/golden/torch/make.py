"""Writes the golden files of the torch format, each with a dump of what must be read from it.

python make.py FOLDER

torch writes every file but those that `rezip`, `big_endian*` and `tar` make: torch has no way to write them (any
more), so they are laid out here after the format that torch reads. Every file is loaded with torch once more, and
the dump is taken of what it loads. The numbers are seeded, so the tensors are the same each time.
"""

import collections
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import types
import warnings
import zipfile

import torch
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.abspath(sys.argv[1])
sys.path.insert(0, os.path.dirname(HERE))
import dump  # noqa: E402

# The classes' module is made from its relative path: whole modules and TorchScript record where a class stood.
os.chdir(HERE)
models = types.ModuleType("models")
models.__file__ = "models.py"
sys.modules["models"] = models
exec(compile(open("models.py", encoding="utf-8").read(), "models.py", "exec"), models.__dict__)
# The legacy format stores the source of each module class. A line stands in for it here.
torch.serialization.get_source_lines_and_file = lambda cls, *_: ([f"class {cls.__name__}: ...\n"], 0, "models.py")
warnings.simplefilter("ignore")

LEGACY_TOO = "shapes views parameters state_dict quantized sparse module_custom checkpoint keys bare".split()
LEGACY = {"_use_new_zipfile_serialization": False}


def seeded(make, *arguments):
    torch.manual_seed(20)
    return make(*arguments)


def path_of(name):
    path = os.path.join(OUT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def load(path):
    return torch.load(path, map_location="cpu", weights_only=False)


def check(name, value, tensors=True, loads=True):
    """Loads the file with torch, holds it against what was saved, and writes its dump.

    A file that torch writes and does not load again (`loads` is false) has the dump of what was saved.
    """
    path = path_of(name)
    try:
        loaded = load(path)
    except Exception as error:  # noqa: BLE001
        if loads:
            raise
        print(f"{name}: torch does not load this ({type(error).__name__}); the dump is of what was saved")
        loaded = value
    else:
        if not loads:
            raise SystemExit(f"{name}: torch does load it, against what this script says")
    want, found = dump.dump(value), dump.write(path, loaded)
    for entries in (want, found):
        for entry in entries.values():
            entry.pop("storage", None)
    if want != found:
        raise SystemExit(f"{name}: torch loads something else than was saved")
    if bool(found) != tensors:
        raise SystemExit(f"{name}: {len(found)} tensors")


def save(name, make, tensors=True, loads=True, **options):
    value = seeded(make)
    torch.save(value, path_of(name), **options)
    check(name, value, tensors, loads)


# --- What is saved ---------------------------------------------------------------------------------


def every_dtype():
    """A vector of each dtype, its extremes and special values included."""
    inf, nan = float("inf"), float("nan")
    floats = [0.0, -0.0, 1.0, -2.5, 0.1, 65504.0, 1e-8, inf, -inf, nan]
    sd = {"bool": torch.tensor([True, False, True])}
    for bits in (8, 16, 32, 64):
        for kind in ("uint", "int"):
            dtype = getattr(torch, f"{kind}{bits}")
            info = torch.iinfo(dtype)
            sd[f"{kind}{bits}"] = torch.tensor([0, 1, 2, info.max, info.min], dtype=dtype)
    for name in ("float16", "bfloat16", "float32", "float64"):
        sd[name] = torch.tensor(floats, dtype=torch.float64).to(getattr(torch, name))
    pairs = torch.complex(torch.tensor(floats), torch.tensor(floats).flip(0))
    sd["complex32"] = pairs.to(torch.complex32)
    sd["complex64"] = pairs
    sd["complex128"] = pairs.to(torch.complex128)
    every_byte = torch.arange(256).to(torch.uint8)
    for name in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"):
        sd[f"float8_{name}"] = every_byte.view(getattr(torch, f"float8_{name}"))
    sd["float4_e2m1fn_x2"] = every_byte.reshape(32, 8).view(torch.float4_e2m1fn_x2)
    return sd


def swappable():
    """The dtypes that torch swaps when it loads a file of the other byte order."""
    kept = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
    sd = every_dtype()
    return {k: v for k, v in sd.items() if k in (*kept, "complex64", "complex128")}


def shapes():
    return {
        "scalar": torch.tensor(3.25),
        "scalar_int": torch.tensor(-7),
        "empty": torch.empty(0),
        "empty_middle": torch.empty(3, 0, 2, dtype=torch.int16),
        "one": torch.ones(1, 1, 1),
        "deep": torch.randn(1, 2, 1, 3, 1, 2, 1),
        "channels_last": torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last),
    }


def views():
    base = torch.arange(24.0)
    grid = base.reshape(4, 6)
    wide = torch.randn(3, 1)
    return {
        "base": base,
        "grid": grid,
        "transposed": grid.t(),
        "rows": grid[1:3],
        "columns": grid[:, 2:5],
        "every_other": base[1::2],
        "last": base[-1],
        "expanded": wide.expand(3, 5),
        "expanded_scalar": torch.tensor(2.0).expand(2, 2),
        "windows": base.as_strided((5, 4), (2, 1), 3),
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "tied": base,
        "half_of_pair": torch.view_as_real(torch.randn(3, dtype=torch.complex64))[:, 1],
        "small_part_of_large": torch.randn(200)[100:103],
        "empty_view": base[5:5],
    }


def parameters():
    weight = nn.Parameter(torch.randn(2, 3))
    marked = nn.Parameter(torch.randn(2))
    marked.note = "a parameter with an attribute"
    return {
        "weight": weight,
        "frozen": nn.Parameter(torch.randn(2), requires_grad=False),
        "leaf": torch.randn(2, requires_grad=True),
        "tied": weight,
        "marked": marked,
        "buffer": nn.Buffer(torch.ones(2)),
    }


def state_dict():
    return seeded(models.Net).state_dict()


def prefixed():
    """A state dict as DataParallel leaves it."""
    return nn.DataParallel(nn.Linear(2, 2)).state_dict()


def quantized():
    floats = torch.randn(3, 4)
    scales, zeros = torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64), torch.tensor([0, 3, -2])
    return {
        "quint8": torch.quantize_per_tensor(floats, 0.05, 128, torch.quint8),
        "qint8": torch.quantize_per_tensor(floats, 0.05, -3, torch.qint8),
        "qint32": torch.quantize_per_tensor(floats, 0.001, 0, torch.qint32),
        "channels": torch.quantize_per_channel(floats, scales, zeros, 0, torch.qint8),
        "channels_last_axis": torch.quantize_per_channel(floats.t(), scales, zeros, 1, torch.qint8),
        "transposed": torch.quantize_per_tensor(floats, 0.05, 0, torch.qint8).t(),
        "plain": floats,
    }


def sparse():
    dense = torch.tensor([[0.0, 1.5, 0.0, 0.0], [2.5, 0.0, 0.0, -1.0], [0.0] * 4, [0.0, 0.0, 3.0, 0.0]])
    twice = torch.sparse_coo_tensor([[0, 0, 1], [1, 1, 2]], [1.0, 2.0, 3.0], (2, 3))
    return {
        "coo": dense.to_sparse().coalesce(),
        "coo_uncoalesced": twice,
        "coo_hybrid": torch.sparse_coo_tensor([[0, 2]], torch.randn(2, 3), (4, 3)),
        "csr": dense.to_sparse_csr(),
        "csc": dense.to_sparse_csc(),
        "bsr": dense.to_sparse_bsr((2, 2)),
        "bsc": dense.to_sparse_bsc((2, 2)),
        "csr_int32": torch.sparse_csr_tensor(
            torch.tensor([0, 1, 2], dtype=torch.int32), torch.tensor([1, 0], dtype=torch.int32), torch.ones(2), (2, 2)
        ),
        "plain": dense,
    }


def meta():
    return {
        "meta": torch.empty(2, 3, device="meta"),
        "meta_half": torch.empty(4, dtype=torch.float16, device="meta"),
        "real": torch.ones(2),
    }


def nested():
    parts = [torch.randn(2, 3), torch.randn(4, 3), torch.randn(1, 3)]
    return {"nested": torch.nested.nested_tensor(parts), "plain": parts[0]}


def subclass():
    labelled = torch.randn(2, 2).as_subclass(models.Labelled)
    labelled.labels = ["a", "b"]
    labelled.companion = torch.arange(3)
    return {"labelled": labelled, "bare": torch.ones(2).as_subclass(models.Labelled)}


def wrapper():
    return {"scaled": models.Scaled(torch.arange(4, dtype=torch.int8), torch.tensor(0.5)), "plain": torch.ones(1)}


def lazy_bits():
    """Conjugate and negative views: their storages hold other numbers than they show."""
    z = torch.randn(3, dtype=torch.complex64)
    adjoint = torch.randn(2, 3, dtype=torch.complex64).mH
    return {"z": z, "conjugate": z.conj(), "negative": z.clone().conj().imag, "adjoint": adjoint}


def opaque():
    bytes_ = torch.arange(6, dtype=torch.uint8)
    return {"bits8": bytes_.view(torch.bits8), "bits16": bytes_.clone().view(torch.bits16)}


def sequential():
    inner = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.1)), nn.Conv1d(4, 2, 1))
    inner.register_forward_pre_hook(zero_hook)
    return inner


def zero_hook(module, arguments):
    """A hook, pickled by name along with its module."""


def custom():
    return models.Net().eval()


def trained(optimizer_of, steps=2):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    optimizer = optimizer_of(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def adam():
    return trained(lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True))[1].state_dict()


def momentum():
    return trained(lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9))[1].state_dict()


def scheduler():
    return trained(lambda p: torch.optim.SGD(p, lr=1e-2))[2].state_dict()


def checkpoint():
    """The usual dict of a training script."""
    model, optimizer, schedule = trained(lambda p: torch.optim.Adam(p))
    return {
        "epoch": 3,
        "loss": 0.125,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
        "rng": torch.arange(16, dtype=torch.uint8),
        "name": "run/α",
    }


def lightning():
    model, optimizer, schedule = trained(lambda p: torch.optim.Adam(p))
    state = collections.OrderedDict((f"model.{k}", v) for k, v in model.state_dict().items())
    progress = {"total": {"ready": 2, "completed": 2}, "current": {"ready": 2, "completed": 2}}
    return {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": progress}},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.25), "dirpath": "."}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
        "hparams_name": "config",
        "hyper_parameters": {"lr": 1e-3, "layers": (3, 4)},
    }


def random_states():
    numpy_like = ("MT19937", list(range(624)), 624, 0, 0.0)
    return {"python": (3, tuple(range(625)), None), "numpy": numpy_like, "cpu": torch.get_rng_state()[:32].clone()}


def keys():
    t = lambda n: torch.full((2,), float(n))
    return {
        0: t(0),
        -5: t(1),
        2**70: t(2),
        (1, "a"): t(3),
        1.5: t(4),
        None: t(5),
        True: t(6),
        "dotted.name": t(8),
        "with space": t(9),
        "naïve 模型 \U0001f3cb": t(10),
        "line\nbreak\t\"quote\"": t(11),
        "nested": {"list": [t(12), {"deep": (t(13), [t(14)])}], 7: {8: t(15)}, "": t(7)},
        "x" * 300: t(16),
    }


def values():
    """Every kind of value that needs no class of its own, beside one tensor."""
    return {
        "tensor": torch.ones(2),
        "none": None,
        "bools": [True, False],
        "ints": [0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, -(2**31), 2**31, 2**63, -(2**63), 2**64, -(10**40)],
        "floats": [0.0, -0.0, 1.5, 1e300, float("inf"), float("-inf"), float("nan")],
        "complex": complex(1.5, -2.0),
        "text": ["", "plain", "naïve 模型", "nul\0inside", "x" * 300],
        "bytes": [b"", b"\x00\xff", b"y" * 300],
        "bytearray": bytearray(b"ab"),
        "set": {1},
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "counter": collections.Counter({"a": 2}),
        "default": collections.defaultdict(list, {"a": [1]}),
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "device": torch.device("cuda:1"),
        "layout": torch.strided,
        "empty": [[], {}, set()],
        "range": range(3),
        "slice": slice(1, None, 2),
    }


def recursive():
    """A list that holds itself beside a tensor, and one object in two places."""
    both = [torch.ones(1)]
    return {"twice": [both, both], "plain": torch.zeros(1)}


def shard(part):
    rows = torch.randn(12, 4)
    return [{"embed.weight": rows, "layer.0.weight": torch.randn(4, 4)}, {"layer.1.weight": torch.randn(4, 4)}][part]


# --- Files that torch reads and does not write -----------------------------------------------------


def records(data):
    """(name, content) of each entry of a zip, and its root folder."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(e.filename, archive.read(e)) for e in archive.infolist()]
    return entries, entries[0][0].split("/")[0]


def rezip(name, make, compression=zipfile.ZIP_DEFLATED, leave=(), root=None, change=None):
    """The zip as another tool packs it: deflated, without padding, maybe without the newer records."""
    value = seeded(make)
    buffer = io.BytesIO()
    torch.save(value, buffer)
    entries, old = records(buffer.getvalue())
    with zipfile.ZipFile(path_of(name), "w", compression) as archive:
        for entry, content in entries:
            inside = entry.removeprefix(f"{old}/")
            if inside in leave:
                continue
            if change:
                content = change(inside, content, value)
            info = zipfile.ZipInfo(f"{root or old}/{inside}", (1980, 1, 1, 0, 0, 0))
            info.compress_type = compression
            archive.writestr(info, content)
    check(name, value)


def swapped(tensor):
    """The storage's bytes in the other order; a complex number is swapped by halves."""
    data = bytes(tensor.untyped_storage())
    width = tensor.element_size() // (2 if tensor.is_complex() else 1)
    return b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))


def to_big_endian(inside, content, value):
    if inside == "byteorder":
        return b"big"
    if inside.startswith("data/"):
        return swapped(list(value.values())[int(inside.removeprefix("data/"))])
    return content


def big_endian_legacy(name, make):
    """The legacy stream as a big-endian machine writes it: little_endian is False, yet counts and storages are not
    swapped, since torch always writes this format's numbers in little-endian order and never looks at the flag."""
    value = seeded(make)
    buffer = io.BytesIO()
    torch.save(value, buffer, **LEGACY)
    stream = io.BytesIO(buffer.getvalue())
    head = [pickle.load(stream) for _ in range(2)]
    info = pickle.load(stream)
    info["little_endian"] = False
    with open(path_of(name), "wb") as file:
        for item in (*head, info):
            pickle.dump(item, file, protocol=2)
        file.write(stream.read())
    check(name, value)


class Ref:
    """A tensor by its key in a legacy tar."""

    def __init__(self, key):
        self.key = str(key)


def tar(name, make):
    """The tar of torch 0.1: members storages, tensors and pickle, with a storage that is a view of another."""
    value = seeded(make)
    storages, tensors, keyed = [], [], {}
    for index, tensor in enumerate(value.values()):
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in keyed:
            keyed[pointer] = 1000 + len(storages)
            storages.append((keyed[pointer], tensor))
        tensors.append((2000 + index, keyed[pointer], tensor))
    kind = lambda t: {torch.float32: torch.FloatStorage, torch.int64: torch.LongStorage, torch.uint8: torch.ByteStorage}[t.dtype]
    part = io.BytesIO()
    pickle.dump(len(storages), part, protocol=2)
    for key, tensor in storages:
        pickle.dump((key, "cpu", kind(tensor)), part, protocol=2)
        data = bytes(tensor.untyped_storage())
        part.write(struct.pack("<q", len(data) // tensor.element_size()) + data)
    # The last tensor's storage is reached through a view of the first storage, from its fifth element on.
    view = (3000, storages[0][0], 4, 8)
    pickle.dump([view], part, protocol=2)
    lists = io.BytesIO()
    extra = (2999, 3000, storages[0][1].reshape(-1)[4:12])
    pickle.dump(len(tensors) + 1, lists, protocol=2)
    for key, storage, tensor in (*tensors, extra):
        pickle.dump((key, storage, kind(tensor).__name__.replace("Storage", "Tensor")), lists, protocol=2)
        lists.write(struct.pack("<ii", tensor.dim(), 0))
        lists.write(struct.pack(f"<{tensor.dim()}q", *tensor.shape))
        lists.write(struct.pack(f"<{tensor.dim()}q", *tensor.stride()))
        lists.write(struct.pack("<q", 0 if key == 2999 else tensor.storage_offset()))
    refs = collections.OrderedDict((n, Ref(2000 + i)) for i, n in enumerate(value))
    refs["view_storage"] = Ref(2999)
    value["view_storage"] = extra[2]
    content = io.BytesIO()
    pickler = pickle.Pickler(content, protocol=2)
    pickler.persistent_id = lambda item: item.key if isinstance(item, Ref) else None
    pickler.dump(refs)
    with tarfile.open(path_of(name), "w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in (("storages", part), ("tensors", lists), ("pickle", content)):
            info = tarfile.TarInfo(member)
            info.size = len(data.getvalue())
            archive.addfile(info, io.BytesIO(data.getvalue()))
    check(name, value)


def tar_tensors():
    base = torch.arange(12.0).reshape(3, 4)
    return collections.OrderedDict(
        weight=base, transposed=base.t(), ids=torch.tensor([3, 1, 2]), bytes=torch.tensor([[1, 2]], dtype=torch.uint8)
    )


# --- All of them -----------------------------------------------------------------------------------


def main():
    os.makedirs(OUT, exist_ok=True)
    zips = {
        "dtypes": every_dtype,
        "shapes": shapes,
        "views": views,
        "parameters": parameters,
        "state_dict": state_dict,
        "prefixed": prefixed,
        "quantized": quantized,
        "sparse": sparse,
        "meta": meta,
        "nested_tensor": nested,
        "subclass": subclass,
        "wrapper": wrapper,
        "lazy_bits": lazy_bits,
        "opaque": opaque,
        "module_sequential": sequential,
        "module_custom": custom,
        "optimizer_adam": adam,
        "optimizer_sgd": momentum,
        "checkpoint": checkpoint,
        "keys": keys,
        "values": values,
        "shared_objects": recursive,
        "bare": lambda: torch.randn(2, 3),
        "bare_parameter": lambda: nn.Parameter(torch.randn(3)),
        "bare_sparse": lambda: sparse()["coo"],
        "list": lambda: [torch.randn(2), (torch.ones(1, dtype=torch.int8), "text"), {"a": torch.zeros(1)}],
    }
    for name, make in zips.items():
        save(f"{name}.pt", make)
    save("legacy_dtypes.pt", swappable, **LEGACY)
    # Storages without a dtype of their own: torch's legacy writer takes them, its legacy reader does not.
    save("legacy_untyped.pt", every_dtype, loads=False, **LEGACY)
    for name in LEGACY_TOO:
        save(f"legacy_{name}.pt", zips[name], **LEGACY)
    for protocol in (1, 2, 3, 4, 5):
        save(f"protocol_{protocol}.pt", checkpoint, pickle_protocol=protocol)
        save(f"legacy_protocol_{protocol}.pt", checkpoint, pickle_protocol=protocol, **LEGACY)
    save("lightning.ckpt", lightning)
    save("empty.pt", dict, tensors=False)
    save("scheduler.pt", scheduler, tensors=False)

    save("trainer/pytorch_model.bin", state_dict)
    save("trainer/optimizer.pt", adam)
    save("trainer/scheduler.pt", scheduler, tensors=False)
    save("trainer/rng_state.pth", random_states)
    save("trainer/training_args.bin", models.Arguments, tensors=False)

    weight_map, total, whole = {}, 0, {}
    torch.manual_seed(21)
    for part in range(2):
        file = f"pytorch_model-{part + 1:05}-of-00002.bin"
        save(f"sharded/{file}", lambda: shard(part))
        for key, tensor in load(path_of(f"sharded/{file}")).items():
            weight_map[key] = file
            total += tensor.nbytes
            whole[key] = tensor
    with open(path_of("sharded/pytorch_model.bin.index.json"), "w", encoding="utf-8") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, file, indent=2)
    dump.write(path_of("sharded/pytorch_model.bin.index.json"), whole)

    value, buffer = seeded(state_dict), io.BytesIO()
    torch.save(value, buffer)
    with open(path_of("to_buffer.pt"), "wb") as file:
        file.write(buffer.getvalue())
    assert records(buffer.getvalue())[1] == "archive"
    check("to_buffer.pt", value)

    for name, kind in (("scripted", models.Cell), ("scripted_nested", models.Pair)):
        script = torch.jit.script(seeded(kind))
        torch.jit.save(script, path_of(f"{name}.pt"), _extra_files={"note.txt": "beside the model"})
        dump.write(path_of(f"{name}.pt"), torch.jit.load(path_of(f"{name}.pt")))

    rezip("deflated.pt", checkpoint)
    rezip("stored_unaligned.pt", views, zipfile.ZIP_STORED)
    newer = (".format_version", ".storage_alignment", "byteorder", ".data/serialization_id")
    rezip("first_container.pt", state_dict, zipfile.ZIP_STORED, leave=newer, root="model 1")
    rezip("big_endian.pt", swappable, zipfile.ZIP_STORED, change=to_big_endian)
    big_endian_legacy("big_endian_legacy.pt", swappable)
    tar("tar.pt", tar_tensors)


if __name__ == "__main__":
    main()
