"""Builds dangerous and broken files that hold tensors, each with the tensors that must come out of it: `rescue.py FOLDER`.

Beside `FOLDER/NAME` stands `FOLDER/NAME.expected.safetensors`; `FOLDER/cases.json` lists the names, whether something must
be reported as lost or doubtful, and which words that report has. Payloads are inert, and no file is loaded again.
"""

import gzip
import io
import json
import lzma
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import joblib
import numpy as np
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))

from archives import Entry, tarred, zipped  # noqa: E402
from corpus import write  # noqa: E402
from opcodes import ECHO, HOSTILE, PAYLOAD, SYSTEM, Raw, call, frame, name, proto, text, value  # noqa: E402

torch.manual_seed(3)
WEIGHTS = {
    "layer.weight": torch.randn(6, 5),
    "layer.bias": torch.randn(6).to(torch.float16),
    "embed": torch.arange(3000, dtype=torch.int64).reshape(100, 30),
    "norm": torch.randn(9).to(torch.bfloat16),
}
ARRAYS = {
    "w": np.arange(600, dtype=np.float32).reshape(20, 30),
    "b": np.arange(7, dtype=np.float64),
    "n": np.arange(3000, dtype=np.int32),
}


class Payload:
    """An object that a pickler writes as a call."""

    def __reduce__(self):
        import os

        return os.system, (ECHO,)


class Cases:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.cases = []

    def add(self, case, content, expected, lost=None, doubt=None):
        write(self.folder / case, content)
        tensors = {k: torch.as_tensor(np.array(v)) if isinstance(v, np.ndarray) else v.contiguous().clone() for k, v in expected.items()}
        save_file(tensors, self.folder / f"{case}.expected.safetensors")
        self.cases.append({"name": case, "lost": lost, "doubt": doubt})


def saved(thing, **how):
    out = io.BytesIO()
    torch.save(thing, out, **how)
    return out.getvalue()


def entries(data):
    """The members of a zip, to be put together again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [Entry(info.filename, archive.read(info)) for info in archive.infolist()]


def data_pickle(all_entries):
    return next(e for e in all_entries if e.name.endswith(b"data.pkl"))


def but(expected, *names):
    return {k: v for k, v in expected.items() if k not in names}


def storage(case, key, numel, kind="FloatStorage", location="cpu"):
    return Raw(value(("storage", name("torch", kind), key, location, numel)) + b"Q")


def rebuild(at, shape, strides, offset=0):
    return call(name("torch._utils", "_rebuild_tensor_v2"), at, offset, shape, strides, False, {})


def zips(cases):
    whole = saved(WEIGHTS)
    parts = entries(whole)
    root = data_pickle(parts).name[: -len("data.pkl")].decode()
    evil = Entry(f"{root}data.pkl", HOSTILE)
    cases.add("duplicate-pickle-last.pt", zipped(*parts, evil), WEIGHTS)
    cases.add("duplicate-pickle-first.pt", zipped(evil, *parts), WEIGHTS)
    fake = Entry(f"{root}data/0", b"\1" * len(next(e for e in parts if e.name.endswith(b"data/0")).data), crc=5)
    cases.add("duplicate-storage.pt", zipped(fake, *parts), WEIGHTS, doubt="2 members")
    overlap = Entry(f"{root}extra", b"", at=40, size=500, packed=500)
    cases.add("overlapping.pt", zipped(*parts, overlap), WEIGHTS)
    again = Entry(f"{root}again", b"", at=0, size=1 << 20, packed=1 << 20)
    cases.add("overlapping-directory.pt", zipped(*parts, again), WEIGHTS)

    def changed(suffix, **lies):
        return [Entry(e.name, e.data, **(lies if e.name.endswith(suffix) else {})) for e in parts]

    short = bytearray(zipped(*parts))
    at = short.rfind(f"{root}data/0".encode()) - 46
    short[at + 20 : at + 28] = struct.pack("<II", 8, 8)
    cases.add("directory-says-less.pt", bytes(short), WEIGHTS)
    cases.add("another-local-name.pt", zipped(*changed(b"data/1", local_name=b"archive/other1")), WEIGHTS)
    cases.add("wrong-checksum.pt", zipped(*changed(b"data/1", crc=77)), WEIGHTS, doubt="checksum")
    cases.add("marked-encrypted.pt", zipped(*changed(b"data.pkl", flags=1)), WEIGHTS)
    cases.add("deflated.pt", zipped(*[Entry(e.name, e.data, method=8) for e in parts], evil), WEIGHTS)
    cases.add("no-directory.pt", whole[: whole.rfind(b"PK\1\2")], WEIGHTS)
    cases.add("half-a-directory.pt", whole[: whole.find(b"PK\1\2") + 20], WEIGHTS)
    cases.add("directory-elsewhere.pt", zipped(*parts, offset_by=999), WEIGHTS)
    cases.add("bytes-behind.pt", whole + b"\0" * 1000, WEIGHTS)
    cases.add("bytes-before.pt", b"#!/bin/sh\necho weighbridge\n" + whole, WEIGHTS)
    last = whole.find(b"data/3")
    cases.add("cut-before-the-last-storage.pt", whole[:last], but(WEIGHTS, "norm"), lost="norm")
    cases.add("odd-member-name.pt", zipped(*parts, Entry("../../evil.pkl", HOSTILE)), WEIGHTS)
    broken = [Entry(e.name, e.data[:-1] + b"\xff\xff" if e.name.endswith(b"data.pkl") else e.data) for e in parts]
    cases.add("pickle-without-its-end.pt", zipped(*broken), WEIGHTS, lost="breaks")


def state_dicts(cases):
    """Torch's files with more in them than tensors."""
    numel = 12
    data = np.arange(numel, dtype=np.float32)
    good = rebuild(storage("good", "0", numel), (3, 4), (4, 1))
    expected = {"good": torch.from_numpy(data.copy()).reshape(3, 4)}

    def file(pickled):
        return zipped(
            Entry("archive/data.pkl", pickled), Entry("archive/byteorder", b"little"), Entry("archive/data/0", data.tobytes()),
            Entry("archive/version", b"3\n"),
        )

    def dict_of(**items):
        return proto(2) + value({**items}) + b"."

    cases.add("payload-beside.pt", file(dict_of(evil=PAYLOAD, good=good)), expected)
    cases.add("payload-behind.pt", file(dict_of(good=good, evil=PAYLOAD)), expected)
    cases.add("foreign-persistent-id.pt", file(dict_of(a=Raw(text("anything") + b"Q"), good=good)), expected)
    odd = rebuild(Raw(value(("storage", SYSTEM, "0", "cpu", 1)) + b"Q"), (1,), (1,))
    cases.add("storage-of-a-function.pt", file(dict_of(odd=odd, good=good)), expected, lost="odd")
    past = rebuild(storage("past", "0", numel), (300, 4), (4, 1))
    cases.add("tensor-past-its-storage.pt", file(dict_of(past=past, good=good)), expected, lost="past")
    missing = rebuild(storage("missing", "77", 4), (4,), (1,))
    cases.add("missing-storage.pt", file(dict_of(gone=missing, good=good)), expected, lost="gone")
    negative = rebuild(storage("negative", "0", numel), (-3, 4), (4, 1))
    cases.add("negative-size.pt", file(dict_of(negative=negative, good=good)), expected, lost="negative")
    huge = rebuild(storage("huge", "0", numel), (1 << 30, 1 << 18), (0, 0))
    cases.add("expanded-to-petabytes.pt", file(dict_of(huge=huge, good=good)), expected, lost="huge")
    inside = call(name("os", "getcwd"), {"good": good})
    cases.add("arguments-of-a-call.pt", file(proto(2) + inside + b"."), expected)
    state = Raw(value(name("mypkg.nets", "Net")) + b")\x81" + value({"good": good, "run": PAYLOAD}) + b"b")
    cases.add("state-of-an-object.pt", file(proto(2) + state + b"."), expected)
    thrown = proto(2) + value({"good": good}) + b"0" + PAYLOAD + b"."
    cases.add("thrown-away.pt", file(thrown), {"unreached.0": expected["good"]})
    frames = proto(4) + frame(3) + value({"good": good}) + b"."
    cases.add("frame-that-lies.pt", file(frames), expected)
    open_end = proto(2) + b"}(" + text("good") + good + text("evil") + PAYLOAD + text("half")
    cases.add("items-that-wait.pt", file(open_end), expected, lost="breaks")


def pickles(cases):
    whole = pickle.dumps(ARRAYS, 4)
    cases.add("payload-first.pkl", HOSTILE + whole, ARRAYS)
    cases.add("several.pkl", pickle.dumps(1) + pickle.dumps({"w": ARRAYS["w"]}) + HOSTILE + pickle.dumps({"b": ARRAYS["b"]}), but(ARRAYS, "n"))
    cases.add("same-names.pkl", pickle.dumps(ARRAYS) + pickle.dumps({"w": ARRAYS["w"] + 1}),
              {**ARRAYS, "pickle 2/w": ARRAYS["w"] + 1})
    payload_inside = pickle.dumps({"evil": Payload(), **ARRAYS}, 2)
    cases.add("payload-inside.pkl", payload_inside, ARRAYS)
    cases.add("without-stop.pkl", whole[:-1], ARRAYS, lost="breaks")
    cases.add("garbage-for-stop.pkl", whole[:-1] + b"\xff" * 40, ARRAYS, lost="breaks")
    half = pickle.dumps(ARRAYS, 2)
    cut = half.find(b"\x71", half.find(b"X\1\0\0\0n"))
    cases.add("cut-off.pkl", half[:cut], but(ARRAYS, "n"), lost="breaks")
    for protocol in range(6):
        cases.add(f"protocol-{protocol}.pkl", pickle.dumps([Payload(), ARRAYS], protocol), {f"1.{k}": v for k, v in ARRAYS.items()})
    bad = bytearray(pickle.dumps({"bad": np.arange(4, dtype=np.int8), **ARRAYS}, 4))
    at = bad.find(b"K\x04\x85")
    bad[at + 1] = 200
    cases.add("array-that-lies.pkl", bytes(bad), ARRAYS, lost="array")
    for method in (0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)):
        out = io.BytesIO()
        joblib.dump({"evil": Payload(), **ARRAYS}, out, compress=method)
        label = method[0] if method else "plain"
        cases.add(f"payload-{label}.joblib", out.getvalue(), ARRAYS)
    out = io.BytesIO()
    joblib.dump({**ARRAYS, "evil": Payload()}, out)
    dump = out.getvalue()
    cut = dump.rfind(b"\x8c", 0, len(dump) - 30)
    cases.add("cut-off.joblib", dump[:cut], ARRAYS, lost="breaks")


def arrays(cases):
    def npy(array, **how):
        out = io.BytesIO()
        np.save(out, array, **how)
        return out.getvalue()

    cases.add("plain.npy", npy(ARRAYS["w"]), {"plain": ARRAYS["w"]})
    cases.add("columns.npy", npy(np.asfortranarray(ARRAYS["w"])), {"columns": ARRAYS["w"]})
    cases.add("big-endian.npy", npy(ARRAYS["w"].astype(">f4")), {"big-endian": ARRAYS["w"]})
    holder = np.empty(2, dtype=object)
    holder[0], holder[1] = Payload(), ARRAYS["w"]
    cases.add("objects.npy", npy(holder, allow_pickle=True), {"1": ARRAYS["w"]})
    out = io.BytesIO()
    np.savez(out, w=ARRAYS["w"], n=ARRAYS["n"], evil=np.array([Payload()], dtype=object))
    cases.add("mixed.npz", out.getvalue(), but(ARRAYS, "b"), lost="evil")
    cases.add("mixed.npz.tar", tarred(("a/mixed.npz", out.getvalue())), but(ARRAYS, "b"), lost="evil")
    out = io.BytesIO()
    np.savez_compressed(out, **ARRAYS)
    cases.add("compressed.npz", out.getvalue(), ARRAYS)


def nested(cases):
    inner = saved({"evil": Payload(), **WEIGHTS})
    plain = pickle.dumps({"evil": Payload(), **ARRAYS})
    cases.add("torch.tar", tarred(("w.bin", inner), ("run.pkl", HOSTILE)), WEIGHTS)
    cases.add("torch.tar.gz", tarred(("models/w.pt", inner), mode="gz"), WEIGHTS)
    cases.add("torch.tar.xz", tarred(("models/w.pt", inner), mode="xz"), WEIGHTS)
    cases.add("torch.tar.bz2", tarred(("models/w.pt", inner), mode="bz2"), WEIGHTS)
    cases.add("zip-in-zip.zip", zipped(Entry("a.zip", zipped(Entry("w.pt", inner, method=8)))), WEIGHTS)
    cases.add("pickle.gz.zip", zipped(Entry("w.pkl.gz", gzip.compress(plain))), ARRAYS)
    cases.add("torch.xz", lzma.compress(inner), WEIGHTS)
    cases.add("torch-in-a-pickle.pkl", pickle.dumps({"model": inner, "evil": Payload()}), WEIGHTS)
    cases.add("both.tar", tarred(("one.pt", inner), ("two.pkl", pickle.dumps({"embed": ARRAYS["n"]}))),
              {**but(WEIGHTS, "embed"), "one.pt/embed": WEIGHTS["embed"], "two.pkl/embed": ARRAYS["n"]})
    cases.add("two-in-a-zip.zip", zipped(Entry("one.pt", inner), Entry("evil.pkl", HOSTILE), Entry("x.pkl", plain)), {**WEIGHTS, **ARRAYS})


def folders(cases):
    first = {k: WEIGHTS[k] for k in ("layer.weight", "layer.bias")}
    second = {"embed": WEIGHTS["embed"], "norm": WEIGHTS["norm"], "evil": Payload()}
    index = {"metadata": {}, "weight_map": {k: f"pytorch_model-0000{1 if k in first else 2}-of-00002.bin" for k in WEIGHTS}}
    shards = {
        "pytorch_model-00001-of-00002.bin": saved(first), "pytorch_model-00002-of-00002.bin": saved(second),
        "pytorch_model.bin.index.json": json.dumps(index).encode(), "config.json": b"{}",
    }
    cases.add("sharded", shards, WEIGHTS)
    parts = entries(shards["pytorch_model-00002-of-00002.bin"])
    broken = {**shards, "pytorch_model-00002-of-00002.bin": zipped(*parts, Entry("archive/data.pkl", HOSTILE))}
    cases.add("sharded-and-broken", broken, WEIGHTS)


def legacy(cases):
    old = saved({"evil": Payload(), **WEIGHTS}, _use_new_zipfile_serialization=False)
    cases.add("legacy.pt", old, WEIGHTS)
    magic = proto(2) + call(name("__builtin__", "eval"), "0x1950a86a20f9469cfc6c") + b"."
    start = old.index(b".", old.index(b"\x8a\x0a")) + 1
    cases.add("legacy-magic-by-eval.pt", magic + old[start:], WEIGHTS)
    # The storages stand in the order of their keys, which are addresses.
    last = next(k for k, v in WEIGHTS.items() if old.endswith(v.view(torch.uint8).numpy().tobytes()))
    cases.add("legacy-cut-off.pt", old[:-6], but(WEIGHTS, last), lost=last)


def main(folder):
    cases = Cases(folder)
    for part in (zips, state_dicts, pickles, arrays, nested, folders, legacy):
        part(cases)
    (Path(folder) / "cases.json").write_text(json.dumps(cases.cases, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
