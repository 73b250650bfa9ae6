"""Hostile pickles in every container, and containers that lie."""

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zlib

from archives import Entry, link, npy, seven, tarred, zipped, zstd
from opcodes import *

STORAGE = value(("storage", name("torch", "FloatStorage"), "0", "cpu", 4)) + BINPERSID
BYTES = struct.pack("<4f", 1, 2, 3, 4)


def tensor(storage=STORAGE, offset=0, size=(2, 2), stride=(2, 1)):
    """A tensor as torch's pickles have it."""
    hooks = Raw(name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE)
    return call(name("torch._utils", "_rebuild_tensor_v2"), Raw(storage), offset, size, stride, False, hooks)


STATE = pickled({"w": tensor()}, 2)
EVIL_STATE = pickled({"w": tensor(), "hook": PAYLOAD}, 2)


def torch_zip(pickle=STATE, *more, storage=BYTES, folder="archive", **options):
    return zipped(
        Entry(f"{folder}/data.pkl", pickle), Entry(f"{folder}/byteorder", b"little"),
        Entry(f"{folder}/data/0", storage), Entry(f"{folder}/version", b"3\n"), *more, **options,
    )


def compressed(data):
    import lz4.frame

    lzma1 = lzma.compress(data, format=lzma.FORMAT_ALONE)
    return {
        "gz": gzip.compress(data, mtime=0), "bz2": bz2.compress(data), "xz": lzma.compress(data), "lzma": lzma1,
        "lz4": lz4.frame.compress(data), "zst": zstd(data), "zlib": zlib.compress(data),
    }


def plain(corpus):
    """A call in each container, without any lie."""

    def add(title, data, about, expect="dangerous", callable="os.system"):
        corpus.hostile("containers", title, data, about, expect, callable)

    add("torch.pt", torch_zip(EVIL_STATE), "a call in the data.pkl of a torch file")
    add("torch.bin", torch_zip(EVIL_STATE, folder="pytorch_model"), "a torch file under the name of Hugging Face")
    add("torch-other-pickle.pt", torch_zip(STATE, Entry("archive/extra.pkl", HOSTILE)), "a second pickle in a torch file")
    add("torch-hidden-member.pt", torch_zip(STATE, Entry("archive/.data/note.txt", HOSTILE)), "a pickle under a text's name in a torch file")
    add("torch-in-storage.pt", torch_zip(STATE, storage=HOSTILE.ljust(64, b"\0")), "a pickle where a storage's bytes are", "not-clean")
    add("deflated.zip", zipped(Entry("model.pkl", HOSTILE, method=8)), "a pickle in a deflated member")
    add("no-extension.zip", zipped(Entry("model", HOSTILE)), "a pickle without an extension in a zip")
    add("text-name.zip", zipped(Entry("README.md", HOSTILE)), "a pickle named as a text in a zip")
    nested = zipped(Entry("inner.zip", zipped(Entry("model.pkl", HOSTILE))))
    add("nested.zip", nested, "a pickle in a zip in a zip")
    add("nested-thrice.zip", zipped(Entry("a.bin", zipped(Entry("b.bin", nested, method=8)))), "a pickle in four zips")
    add("torch-in-zip.zip", zipped(Entry("model.pt", torch_zip(EVIL_STATE))), "a torch file in a zip")
    add("zip-as.pkl", zipped(Entry("data.pkl", HOSTILE)), "a zip named as a pickle")
    add("zip-as.txt", zipped(Entry("data.pkl", HOSTILE)), "a zip named as a text")
    add("zip-as.safetensors", zipped(Entry("data.pkl", HOSTILE)), "a zip named as safetensors")
    add("handler.mar", zipped(Entry("MAR-INF/MANIFEST.json", b'{"model": {"handler": "handler.py", "serializedFile": "model.pt"}}'),
        Entry("handler.py", b"import os\nos.system('echo weighbridge')\n"), Entry("model.pt", torch_zip(EVIL_STATE))), "TorchServe's archive")
    add("model.tar", tarred(("model.pkl", HOSTILE)), "a pickle in a tar")
    add("model.tar.gz", tarred(("model/model.bin", HOSTILE), mode="gz"), "a pickle in a tar.gz")
    add("model.tgz", tarred(("model", torch_zip(EVIL_STATE)), mode="gz"), "a torch file in a tar.gz")
    add("model.tar.bz2", tarred(("model.pkl", HOSTILE), mode="bz2"), "a pickle in a tar.bz2")
    add("model.tar.xz", tarred(("model.pkl", HOSTILE), mode="xz"), "a pickle in a tar.xz")
    add("torch-tar.pt", tarred(("sys_info", pickled({}, 2)), ("pickle", HOSTILE), ("storages", pickled(0, 2)), ("tensors", pickled(0, 2))),
        "torch's oldest form, a tar")
    add("zip-in-tar.tar", tarred(("a.zip", zipped(Entry("model.pkl", HOSTILE)))), "a zip in a tar")
    add("nemo.nemo", tarred(("model_config.yaml", b"target: os.system\n_target_: os.system\n"), ("model_weights.ckpt", torch_zip(EVIL_STATE))), "NeMo's tar")
    add("model.7z", seven(HOSTILE), "a pickle in a 7z: named and refused", "not-clean", None)
    add("seven-as.pt", seven(torch_zip(EVIL_STATE)), "a 7z named as a torch file", "not-clean", None)
    add("rar-as.pt", b"Rar!\x1a\x07\x01\x00" + HOSTILE, "a rar: named and refused", "not-clean", None)
    for extension, data in compressed(HOSTILE).items():
        add(f"pickle.pkl.{extension}", data, f"a pickle compressed by {extension}")
        add(f"compressed-{extension}.pkl", data, f"a compressed pickle ({extension}) named .pkl")
    add("gz-twice.pkl.gz", gzip.compress(gzip.compress(HOSTILE, mtime=0), mtime=0), "compressed twice")
    add("gz-of-zip.pt.gz", gzip.compress(torch_zip(EVIL_STATE), mtime=0), "a torch file in gzip")
    add("gz-members.gz", gzip.compress(pickled(WEIGHTS), mtime=0) + gzip.compress(HOSTILE, mtime=0), "the second member of a gzip file")
    add("gz-cut.pkl.gz", gzip.compress(HOSTILE + b"\0" * 5000, mtime=0)[:-9], "a gzip file that is cut off behind the pickle", "not-clean", None)
    objects = npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", HOSTILE)
    add("npz-in-tar.tar", tarred(("arrays.npz", zipped(Entry("names.npy", objects, method=8)))), "an object array in an npz in a tar")
    add("npz-in-tar.tar.gz", tarred(("arrays.npz", zipped(Entry("names.npy", objects))), mode="gz"), "an object array in an npz in a tar.gz")
    inner = tarred(("model.pkl.xz", lzma.compress(HOSTILE)), mode="bz2")
    add("four-containers.zip", zipped(Entry("a.tar.bz2", inner, method=8)), "a pickle in xz in a tar in bzip2 in a zip")
    add("gz-in-zip-in-gz.gz", gzip.compress(zipped(Entry("w.joblib", zlib.compress(HOSTILE))), mtime=0), "a pickle in zlib in a zip in gzip")
    wide = [{"id": lzma.FILTER_LZMA2, "dict_size": 96 << 20}]
    add("wide-dictionary.pkl.xz", lzma.compress(HOSTILE, filters=wide), "xz with a dictionary past what is given to it", "not-clean", None)
    # A zip whose offsets count from the tar's beginning: its directory stands in the member, its own members before it.
    outside = zipped(Entry("model.pkl", HOSTILE), prefix=tarred(("notes.txt", b"nothing"))[:1024] + bytes(512))
    member = outside[1536:]
    add("zip-through-tar.tar", tarred(("notes.txt", b"nothing"), ("end.bin", member)), "a zip that begins in a tar's member and counts from the tar's beginning")
    add("sealed.pkl.age", b"age-encryption.org/v1\n-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n--- " + b"A" * 43 + b"\n" + bytes(range(64)),
        "an encrypted file: nobody can look inside", "not-clean", None)
    add("sealed.bin", b"Salted__" + bytes(range(56)), "a file that openssl encrypted", "not-clean", None)
    bomb = gzip.compress(b"\0" * 64 * 2**20, mtime=0)
    corpus.hostile("containers", "bomb.pkl.gz", bomb, "64 MiB of zeros in 64 KiB of gzip", "not-clean")
    corpus.hostile("containers", "bomb-then-call.pkl.gz", gzip.compress(pickled(b"\0" * 32 * 2**20) + HOSTILE, mtime=0),
        "a call behind 32 MiB of zeros in gzip", "not-clean")


def arrays(corpus):
    """.npy and .npz with dtype object, and joblib's dumps."""

    def add(title, data, about, expect="dangerous", callable="os.system"):
        corpus.hostile("arrays", title, data, about, expect, callable)

    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    add("object.npy", npy(header, HOSTILE), "an object array is a pickle")
    add("object-v2.npy", npy(header, HOSTILE, 2), "format 2.0")
    add("object-v3.npy", npy(header, HOSTILE, 3), "format 3.0")
    add("record.npy", npy("{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (1,), }", HOSTILE), "a record with an object in it")
    add("object-empty.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (0,), }", HOSTILE), "no elements, and a pickle all the same")
    add("object-scalar.npy", npy("{'descr': 'O', 'fortran_order': False, 'shape': (), }", HOSTILE), "a scalar of dtype O")
    add("spelled-object.npy", npy("{ \"descr\" : 'object' ,\n 'fortran_order':False, 'shape':(1 ,) }", HOSTILE), "the dtype spelled out")
    add("header-call.npy", npy("{'descr': __import__('os').system('echo weighbridge'), 'fortran_order': False, 'shape': (1,)}", BYTES), "a call in the header", "not-clean", None)
    add("header-lies.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", BYTES), "a shape past the file", "not-clean", None)
    add("header-negative.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", BYTES), "a negative shape", "not-clean", None)
    add("behind-data.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", BYTES + HOSTILE), "a pickle behind the elements", "not-clean")
    good = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", BYTES)
    evil = npy(header, HOSTILE)
    add("object.npz", zipped(Entry("w.npy", good), Entry("names.npy", evil)), "an object array in an npz")
    add("pickle-member.npz", zipped(Entry("w.npy", good), Entry("x.pkl", HOSTILE)), "a pickle in an npz")
    add("pickle-as-npy.npz", zipped(Entry("w.npy", HOSTILE)), "numpy.load falls back to a pickle")
    wrapper = name("joblib.numpy_pickle", "NumpyArrayWrapper")
    state = {"subclass": name("numpy", "ndarray"), "shape": (1,), "order": "C", "allow_mmap": False, "numpy_array_alignment_bytes": 16}
    object_dtype = Raw(value(call(name("numpy", "dtype"), "O8", False, True)))
    wrapped = wrapper + EMPTY_TUPLE + NEWOBJ + value({**state, "dtype": object_dtype}) + BUILD
    add("object.joblib", proto(4) + wrapped + HOSTILE + STOP, "joblib's array of objects is a pickle inside the pickle")
    numbers = wrapper + EMPTY_TUPLE + NEWOBJ + value({**state, "shape": (4,), "dtype": Raw(value(call(name("numpy", "dtype"), "f4", False, True)))}) + BUILD
    padded = proto(4) + numbers
    room = -(len(padded) + 1) % 16
    add("after-array.joblib", padded + bytes([room]) + b"\xff" * room + BYTES + value((ECHO,)) + POP + PAYLOAD + STOP, "a call behind an array's raw bytes")
    evil_subclass = {**state, "subclass": name("subprocess", "Popen"), "dtype": object_dtype}
    add("subclass.joblib", proto(4) + wrapper + EMPTY_TUPLE + NEWOBJ + value(evil_subclass) + BUILD + pickled([]) + STOP, "an array's class is a Popen", callable="subprocess.Popen")
    for extension, data in compressed(HOSTILE).items():
        add(f"compressed.{extension}.joblib", data, f"a call in joblib's {extension}")
    z_file = b"ZF" + f"{hex(len(HOSTILE)):<19}".encode() + zlib.compress(HOSTILE)
    add("zfile.joblib", z_file, "joblib's oldest compression", "not-clean", None)


def lies(corpus):
    """Zips that say one thing in one place and another thing elsewhere."""

    def add(title, data, about, expect="not-clean", callable=None):
        corpus.hostile("archives-that-lie", title, data, about, expect, callable)

    data = Entry("archive/data.pkl", EVIL_STATE)
    for bit in (0x1, 0x20, 0x40, 0x2000):
        entry = Entry("archive/data.pkl", EVIL_STATE, flags=bit)
        add(f"flag-{bit:#x}.pt", zipped(entry, Entry("archive/version", b"3\n")), f"flag bit {bit:#x} on a member that is not encrypted")
        lying = Entry("archive/data.pkl", EVIL_STATE, flags=bit, local_flags=0)
        add(f"flag-{bit:#x}-central.pt", zipped(lying, Entry("archive/version", b"3\n")), f"flag bit {bit:#x} in the directory alone")
    add("bad-crc.pt", zipped(Entry("archive/data.pkl", EVIL_STATE, crc=1), Entry("archive/version", b"3\n")), "a wrong CRC: torch reads it all the same", "dangerous", "os.system")
    add("bad-crc-benign.pt", zipped(Entry("archive/data.pkl", STATE, crc=1), Entry("archive/data/0", BYTES), Entry("archive/version", b"3\n")), "a wrong CRC on a harmless pickle")
    add("local-name.pt", torch_zip(STATE, Entry("archive/notes", EVIL_STATE, local_name=b"archive/data.pkl")), "another name in the local header")
    add("local-name-other.zip", zipped(Entry("readme.txt", HOSTILE, local_name=b"model.pkl")), "a text in the directory, a pickle in the local header", "dangerous", "os.system")
    add("two-of-one-name.pt", zipped(Entry("archive/data.pkl", STATE), data, Entry("archive/data/0", BYTES), Entry("archive/version", b"3\n")), "two members of one name, the second evil", "dangerous", "os.system")
    add("two-first-evil.pt", zipped(data, Entry("archive/data.pkl", STATE), Entry("archive/data/0", BYTES), Entry("archive/version", b"3\n")), "two members of one name, the first evil", "dangerous", "os.system")
    add("two-by-case.pt", zipped(Entry("archive/data.pkl", STATE), Entry("archive/DATA.PKL", EVIL_STATE), Entry("archive/data/0", BYTES), Entry("archive/version", b"3\n")), "two names that differ in case", "dangerous", "os.system")
    add("overlap.zip", zipped(Entry("a.txt", b"PK" * 100), Entry("b.txt", b"PK" * 100, at=0)), "two members over the same bytes")
    for title, path in [("parent", "../weighbridge.pkl"), ("absolute", "/tmp/weighbridge.pkl"), ("deep-parent", "a/../../x.pkl"), ("backslash", "..\\x.pkl"), ("drive", "C:\\x.pkl"), ("nul", "a.txt\0.pkl"), ("dot", "./../x")]:
        add(f"path-{title}.zip", zipped(Entry(path, pickled(WEIGHTS))), f"a member named {path!r}")
        if title in ("parent", "absolute"):
            add(f"path-{title}.tar", tarred((path, pickled(WEIGHTS))), f"a tar's member named {path!r}")
    add("symlink.zip", zipped(Entry("weights", b"/etc/passwd", mode=(stat.S_IFLNK | 0o777) << 16)), "a symlink in a zip")
    add("symlink.tar", tarred((link("weights", "/etc/passwd", tarfile.SYMTYPE), b"")), "a symlink in a tar")
    add("hardlink.tar", tarred((link("weights", "../../x", tarfile.LNKTYPE), b"")), "a hard link in a tar")
    add("device.tar", tarred((link("weights", "", tarfile.CHRTYPE), b"")), "a device in a tar")
    zeros = b"\0" * 32 * 2**20
    add("bomb.zip", zipped(Entry("weights.bin", zeros, method=8)), "32 MiB of zeros in a small zip")
    add("bomb-lies.zip", zipped(Entry("weights.bin", zeros, method=8, size=100)), "a bomb that says it has 100 bytes")
    core = zipped(Entry("w", zeros, method=8))
    add("bomb-nested.zip", zipped(*[Entry(f"{i}.zip", core, method=8) for i in range(16)]), "16 bombs in a zip")
    add("cut-directory.pt", zipped(data, Entry("archive/version", b"3\n"), cut=50), "a directory that is cut off")
    add("cut-end.pt", torch_zip(EVIL_STATE)[:-22], "no end record")
    add("cut-middle.pt", torch_zip(EVIL_STATE)[:300], "a torch file that is cut off in the middle")
    add("count-more.pt", torch_zip(EVIL_STATE, count=9), "more members counted than there are")
    add("count-fewer.pt", zipped(Entry("archive/version", b"3\n"), data, count=1), "fewer members counted than there are")
    add("zip64-count.pt", torch_zip(EVIL_STATE, zip64=2**60), "a zip64 record that counts 2^60 members")
    extra = struct.pack("<2H2Q", 1, 16, 2**62, 2**62)
    add("zip64-sizes.pt", zipped(Entry("archive/data.pkl", EVIL_STATE, size=0xFFFFFFFF, extra=extra)), "zip64 sizes past the file")
    add("offset.pt", torch_zip(EVIL_STATE, offset_by=1 << 30), "a directory past the end of the file")
    add("unknown-method.pt", zipped(Entry("archive/data.pkl", EVIL_STATE, method=99, raw=True)), "a method that nobody knows")
    add("method-lzma.zip", zipped(Entry("model.pkl", EVIL_STATE, method=14, raw=True)), "method LZMA, and no LZMA")
    add("size-lies.pt", zipped(Entry("archive/data.pkl", EVIL_STATE, size=10, packed=10), Entry("archive/version", b"3\n")), "a member longer than it says")
    add("prefix.pt", torch_zip(EVIL_STATE, prefix=b"\x7fELF" + b"\0" * 200), "a zip behind other bytes")
    add("prefix-pickle.pt", torch_zip(STATE, prefix=HOSTILE), "a pickle in front of a harmless zip", "dangerous", "os.system")
    add("suffix-pickle.pt", torch_zip(STATE, suffix=HOSTILE), "a pickle behind a harmless zip")
    add("comment-pickle.zip", zipped(Entry("a.txt", b"a"), comment=HOSTILE), "a pickle in the comment of a zip")
    add("between-members.zip", zipped(Entry("a.txt", b"a"), prefix=HOSTILE), "a pickle in front of the first member", "dangerous", "os.system")
    twice = torch_zip(EVIL_STATE) + torch_zip(STATE)
    add("two-zips.pt", twice, "two zips one after the other: readers differ on which counts")
    add("tar-and-zip.pt", tarred(("pickle", HOSTILE)) + torch_zip(STATE), "a tar and a zip at once", "dangerous", "os.system")
    add("tar-checksum.tar", bytearray_with(tarred(("model.pkl", HOSTILE)), 150, b"9"), "a tar whose checksum is wrong")
    add("tar-size.tar", bytearray_with(tarred(("model.pkl", HOSTILE)), 124, b"77777777777\0"), "a tar's size past the file")
    add("empty.pt", b"", "an empty file named as a model")


def bytearray_with(data, at, new):
    data = bytearray(data)
    data[at : at + len(new)] = new
    return bytes(data)


def tensors(corpus):
    """Torch files whose tensors do not fit their storages."""

    def add(title, value_, about, storage=BYTES):
        corpus.hostile("tensors-that-lie", f"{title}.pt", torch_zip(pickled({"w": value_}, 2), storage=storage), about, "not-clean")

    big = value(("storage", name("torch", "FloatStorage"), "0", "cpu", 2**40)) + BINPERSID
    negative = value(("storage", name("torch", "FloatStorage"), "0", "cpu", -4)) + BINPERSID
    missing = value(("storage", name("torch", "FloatStorage"), "9", "cpu", 4)) + BINPERSID
    outside = value(("storage", name("torch", "FloatStorage"), "../../0", "cpu", 4)) + BINPERSID
    add("numel", tensor(big), "a storage of 2^40 elements in 16 bytes")
    add("numel-negative", tensor(negative), "a storage of -4 elements")
    add("storage-missing", tensor(missing), "a storage that is not there")
    add("storage-outside", tensor(outside), "a storage named ../../0")
    add("offset", tensor(offset=100), "an offset past the storage")
    add("offset-negative", tensor(offset=-1), "a negative offset")
    add("stride", tensor(stride=(1000, 1)), "a stride past the storage")
    add("stride-negative", tensor(stride=(-2, 1)), "a negative stride")
    add("size-negative", tensor(size=(-2, 2)), "a negative size")
    add("overflow", tensor(size=(2**62, 4), stride=(4, 1)), "a product that overflows")
    add("rank", tensor(size=(2, 2), stride=(1,)), "fewer strides than sizes")
    add("storage-short", tensor(), "a storage of 3 bytes", storage=b"abc")


def torchscript(corpus):
    """TorchScript: what torch.load hands to the interpreter, whatever weights_only says."""

    def script(title, code, about, constants=pickled((), 2), data=STATE, more=(), expect="not-clean", callable=None):
        entries = [
            Entry("archive/data.pkl", data), Entry("archive/code/__torch__.py", code.encode()),
            Entry("archive/code/__torch__.py.debug_pkl", pickled([], 2)), Entry("archive/constants.pkl", constants),
            Entry("archive/data/0", BYTES), Entry("archive/version", b"3\n"), *more,
        ]
        corpus.hostile("torchscript", f"{title}.pt", zipped(*entries), about, expect, callable)

    forward = "class M(Module):\n  __parameters__ = []\n  __buffers__ = []\n  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n"
    script("save", forward + "    torch.save(x, \"/nonexistent/weighbridge\")\n    return x\n", "a program that writes a file (CVE-2025-32434)")
    script("from-file", forward + "    return torch.from_file(\"/etc/passwd\", False, 10, dtype=0)\n", "a program that reads a file")
    script("setstate", forward + "    return x\n  def __setstate__(self: __torch__.M, state: int) -> NoneType:\n    torch.save(1, \"/nonexistent/x\")\n", "a program that runs while it is loaded")
    script("loop", forward + "    while True:\n      x = torch.add(x, x)\n    return x\n", "a program that never ends")
    script("custom-operator", forward + "    return ops.evil.run(x)\n", "an operator of a library")
    script("empty-code", "", "code that is empty: torch.load dispatches by the folder's name alone")
    script("constants-call", forward + "    return x\n", "a call in constants.pkl", constants=HOSTILE, expect="dangerous", callable="os.system")
    script("data-call", forward + "    return x\n", "a call in data.pkl beside code/", data=EVIL_STATE, expect="dangerous", callable="os.system")
    script("debug-call", forward + "    return x\n", "a call in a debug pickle", more=[Entry("archive/code/x.debug_pkl", HOSTILE)], expect="dangerous", callable="os.system")
    script("bytecode-call", forward + "    return x\n", "a call in bytecode.pkl", more=[Entry("archive/bytecode.pkl", HOSTILE)], expect="dangerous", callable="os.system")
    script("extra-files", forward + "    return x\n", "a pickle among the extra files", more=[Entry("archive/extra/x", HOSTILE)], expect="dangerous", callable="os.system")
    package = zipped(
        Entry("p/.data/extern_modules", b"os\n"), Entry("p/.data/version", b"6\n"), Entry("p/mod.py", b"import os\nos.system('echo weighbridge')\n"),
        Entry("p/model/model.pkl", pickled(call(name("mod", "f")), 2)),
    )
    corpus.hostile("torchscript", "package.pt", package, "torch.package: modules in the file", "not-clean")
    exported = zipped(Entry("m/archive_format", b"pt2"), Entry("m/models/model.json", b"{}"), Entry("m/data/weights/model.pt", HOSTILE), Entry("m/version", b"1"))
    corpus.hostile("torchscript", "exported.pt2", exported, "a call in the weights of an exported program", callable="os.system")


def no_models(corpus):
    """What is saved as a model and is none."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 438007537\n"
    page = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>404</body></html>\n"
    for file in ("model.safetensors", "pytorch_model.bin", "model.pkl", "model.onnx", "model.gguf"):
        corpus.hostile("no-models", f"lfs-{file}", pointer, "a Git LFS pointer", "not-clean")
        corpus.hostile("no-models", f"html-{file}", page, "an HTML page", "not-clean")
    corpus.hostile("no-models", "zeros.safetensors", b"\0" * 4096, "zeros", "not-clean")
    corpus.hostile("no-models", "random.pkl", bytes((i * 97 + 13) % 251 for i in range(4096)), "bytes that are nothing", "not-clean")
    corpus.hostile("no-models", "elf.bin", b"\x7fELF\x02\x01\x01" + b"\0" * 200, "a program", "not-clean")
    corpus.hostile("no-models", "script.pt", b"#!/bin/sh\necho weighbridge\n", "a shell script named as a model", "not-clean")
    corpus.hostile("no-models", "windows.pth", b"MZ\x90\0" + b"\0" * 200, "a Windows program", "not-clean")
    corpus.hostile("no-models", "error.json.safetensors", b'{"error": "Repository not found"}', "a service's error", "not-clean")


def build(corpus):
    plain(corpus)
    arrays(corpus)
    lies(corpus)
    tensors(corpus)
    torchscript(corpus)
    no_models(corpus)
