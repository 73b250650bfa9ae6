"""Writes the golden files of ONNX, each with a dump of what must be read from it.

python make.py FOLDER

The messages are made and written by the `onnx` package, and the dumps are of what its `numpy_helper.to_array` reads;
`unpacked.onnx` is put together by hand, since no writer spells repeated numbers one by one, and parsed by the package
once more before it is kept. A dump lists dense tensors only; strings are values, and no entry.
"""

import hashlib
import json
import os
import struct
import sys

import ml_dtypes
import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

OUT = os.path.abspath(sys.argv[1]) if __name__ == "__main__" else None
SHOWN = 64
NAMES = {
    TensorProto.FLOAT: "F32",
    TensorProto.UINT8: "U8",
    TensorProto.INT8: "I8",
    TensorProto.UINT16: "U16",
    TensorProto.INT16: "I16",
    TensorProto.INT32: "I32",
    TensorProto.INT64: "I64",
    TensorProto.BOOL: "BOOL",
    TensorProto.FLOAT16: "F16",
    TensorProto.DOUBLE: "F64",
    TensorProto.UINT32: "U32",
    TensorProto.UINT64: "U64",
    TensorProto.COMPLEX64: "C64",
    TensorProto.COMPLEX128: "C128",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.FLOAT8E4M3FN: "F8_E4M3",
    TensorProto.FLOAT8E4M3FNUZ: "F8_E4M3FNUZ",
    TensorProto.FLOAT8E5M2: "F8_E5M2",
    TensorProto.FLOAT8E5M2FNUZ: "F8_E5M2FNUZ",
    TensorProto.FLOAT8E8M0: "F8_E8M0",
    TensorProto.UINT4: "U4",
    TensorProto.INT4: "I4",
    TensorProto.FLOAT4E2M1: "F4",
    TensorProto.UINT2: "U2",
    TensorProto.INT2: "I2",
    TensorProto.FLOAT6E2M3: "F6_E2M3",
    TensorProto.FLOAT6E3M2: "F6_E3M2",
}
BITS = {"U4": 4, "I4": 4, "F4": 4, "U2": 2, "I2": 2, "F6_E2M3": 6, "F6_E3M2": 6}


def raw(array, dtype):
    """The elements' bytes: narrow ones packed, the first in the lowest bits."""
    codes = numpy.ascontiguousarray(array).view(numpy.uint8).reshape(-1).tolist()
    if dtype not in BITS:
        return bytes(codes)
    bits, number = BITS[dtype], 0
    for i, code in enumerate(codes):
        number |= (code & ((1 << bits) - 1)) << (i * bits)
    return number.to_bytes((len(codes) * bits + 7) // 8, "little")


def describe(tensor, array):
    dtype = NAMES[tensor.data_type]
    data = raw(array, dtype)
    entry = {"dtype": dtype, "shape": list(array.shape), "sha256": hashlib.sha256(data).hexdigest()}
    if len(data) <= SHOWN:
        entry["hex"] = data.hex()
    return entry


def dense(sparse):
    """A sparse tensor as an array."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    out = numpy.zeros(tuple(sparse.dims), values.dtype)
    for index, value in zip(indices, values):
        if indices.ndim == 1:
            out.reshape(-1)[index] = value
        else:
            out[tuple(index)] = value
    return out


def read(path):
    """What the package reads from a file."""
    model = onnx.load(path, load_external_data=False)
    base, entries = os.path.dirname(path), {}
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.STRING:
            entries[tensor.name] = describe(tensor, numpy_helper.to_array(tensor, base_dir=base))
    for sparse in model.graph.sparse_initializer:
        entries[sparse.values.name] = describe(sparse.values, dense(sparse))
    return entries


def dump(name):
    """Writes the dump of what the package reads from a file."""
    path = os.path.join(OUT, name)
    entries = read(path)
    with open(f"{path}.json", "w", encoding="utf-8") as file:
        lines = [f"  {json.dumps(n, ensure_ascii=False)}: {json.dumps(e)}" for n, e in entries.items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n" if lines else "{}\n")


def model_of(initializers=(), sparse=(), nodes=(), inputs=(), outputs=(), name="golden", **rest):
    graph = helper.make_graph(list(nodes), name, list(inputs), list(outputs), list(initializers))
    graph.sparse_initializer.extend(sparse)
    rest.setdefault("opset_imports", [helper.make_opsetid("", 26)])
    return helper.make_model(graph, ir_version=14, producer_name="golden", **rest)


def save(name, model):
    path = os.path.join(OUT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))
    dump(name)


def arrays():
    """A small array of every data type: extremes where there are some, every code of the narrow types."""
    floats = [0.0, -0.0, 1.0, -2.5, 0.1, 65504.0, 1e-8, float("inf"), -float("inf"), float("nan")]
    out = {}
    for kind in ("uint", "int"):
        for bits in (8, 16, 32, 64):
            info = numpy.iinfo(f"{kind}{bits}")
            out[f"{kind}{bits}"] = numpy.array([0, 1, 2, info.max, info.min, 7], f"{kind}{bits}").reshape(2, 3)
        for bits in (4, 2):
            codes = numpy.arange(1 << bits, dtype=numpy.uint8)
            if kind == "int":
                codes = (codes.astype(numpy.int8) - (1 << bits - 1)).view(numpy.uint8)
            # An odd number, so that the last byte is filled up.
            out[f"{kind}{bits}"] = codes.view(numpy.int8).astype(getattr(ml_dtypes, f"{kind}{bits}"))[1:]
    out["bool"] = numpy.array([[True, False, True]])
    for name in ("float16", "float32", "float64"):
        out[name] = numpy.array(floats, name)
    out["bfloat16"] = numpy.array(floats, numpy.float32).astype(ml_dtypes.bfloat16)
    pairs = list(zip(floats, floats[::-1]))
    out["complex64"] = numpy.array(pairs, numpy.float32).view(numpy.complex64).reshape(-1)
    out["complex128"] = numpy.array(pairs, numpy.float64).view(numpy.complex128).reshape(-1)
    every = numpy.arange(256, dtype=numpy.uint8)
    for name in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"):
        out[f"float8_{name}"] = every.view(getattr(ml_dtypes, f"float8_{name}"))
    out["float4_e2m1fn"] = (every[:16]).view(ml_dtypes.float4_e2m1fn).reshape(4, 4)
    out["float6_e2m3fn"] = (every[:64]).view(ml_dtypes.float6_e2m3fn)
    out["float6_e3m2fn"] = (every[:64]).view(ml_dtypes.float6_e3m2fn)
    return out


def typed(name, array):
    """The elements in the typed field that the schema names for them."""
    data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=name, data_type=data_type, dims=array.shape)
    dtype, flat = NAMES[data_type], array.reshape(-1)
    if dtype in ("F32", "C64"):
        tensor.float_data.extend(flat.view(numpy.float32).tolist())
    elif dtype in ("F64", "C128"):
        tensor.double_data.extend(flat.view(numpy.float64).tolist())
    elif dtype == "I64":
        tensor.int64_data.extend(flat.tolist())
    elif dtype in ("U64", "U32"):
        tensor.uint64_data.extend(flat.tolist())
    elif dtype in ("F6_E2M3", "F6_E3M2"):
        tensor.int32_data.extend(flat.view(numpy.uint8).tolist())
    elif dtype in BITS:
        tensor.int32_data.extend(raw(array, dtype))
    elif dtype in ("F16", "BF16"):
        tensor.int32_data.extend(flat.view(numpy.uint16).tolist())
    elif array.dtype.itemsize == 1 and dtype != "I8":
        tensor.int32_data.extend(flat.view(numpy.uint8).tolist())
    else:
        tensor.int32_data.extend(flat.tolist())
    return tensor


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, content):
    """A field of bytes, or of a number."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def unpacked():
    """Repeated numbers one by one, packed, and in turns; dims packed; an unknown field in between."""
    ones = b"".join(varint(4 << 3 | 5) + struct.pack("<f", x) for x in (1.0, -2.5, 3.0))
    floats = field(1, 3) + field(2, 1) + ones + field(8, b"floats")
    turns = b"".join(
        [field(7, -1), field(7, varint(2) + varint(-3)), field(200, b"unknown"), field(7, 1 << 62), field(7, b"")]
    )
    longs = field(8, b"longs") + field(1, varint(2) + varint(2)) + field(2, 7) + turns
    halves = field(8, b"bytes") + field(2, 3) + field(1, 2) + field(5, -128) + field(5, varint(127))
    double = field(8, b"double") + field(2, 11) + varint(10 << 3 | 1) + struct.pack("<d", 0.1)
    tensors = b"".join(field(5, t) for t in (floats, longs, halves, double))
    graph = tensors + field(2, b"unpacked") + field(201, b"of the future")
    opset = field(1, b"") + field(2, 17)
    # Fields of the model in no order at all.
    data = field(8, opset) + field(7, graph) + field(1, 8) + field(202, 5)
    with open(os.path.join(OUT, "unpacked.onnx"), "wb") as file:
        file.write(data)
    dump("unpacked.onnx")


def sparse(name, values, indices, dims):
    return helper.make_sparse_tensor(
        numpy_helper.from_array(numpy.array(values), name),
        numpy_helper.from_array(numpy.array(indices, numpy.int64), ""),
        dims,
    )


def whole_graph():
    """Nodes of several operator sets, a subgraph with a tensor of its own, a function."""
    info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    weight = numpy_helper.from_array(numpy.arange(6, dtype=numpy.float32).reshape(2, 3), "weight")
    inner = numpy_helper.from_array(numpy.full((3,), 2.0, numpy.float32), "inner")
    then = helper.make_graph([helper.make_node("Add", ["y", "inner"], ["then"])], "then", [], [info("then", None)], [inner])
    other = helper.make_graph([helper.make_node("Identity", ["y"], ["else"])], "else", [], [info("else", None)])
    nodes = [
        helper.make_node("Constant", [], ["limit"], value=numpy_helper.from_array(numpy.float32(1.0))),
        helper.make_node("MatMul", ["x", "weight"], ["y"], name="product", doc_string="a product"),
        helper.make_node("ReduceSum", ["y"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "limit"], ["large"]),
        helper.make_node("If", ["large"], ["z"], then_branch=then, else_branch=other),
        helper.make_node("Twice", ["z"], ["out"], domain="own"),
    ]
    function = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 21)],
    )
    model = model_of(
        [weight],
        nodes=nodes,
        inputs=[info("x", ["batch", 2])],
        outputs=[info("out", ["batch", 3])],
        functions=[function],
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("own", 1)],
    )
    model.ir_version = 10
    helper.set_model_props(model, {"key": "value", "empty": ""})
    onnx.checker.check_model(model, full_check=True)
    return model


def external():
    """Tensors in two files beside the model, with and without offset, length and checksum."""
    folder = os.path.join(OUT, "external")
    os.makedirs(os.path.join(folder, "parts"))
    a = numpy.arange(5, dtype=numpy.float32)
    b = numpy.arange(7, dtype=numpy.int16).reshape(7, 1)
    first = b"before" + a.tobytes() + b"--" + b.tobytes() + b"behind"
    whole = numpy.arange(9, dtype=numpy.uint8)
    with open(os.path.join(folder, "weights.data"), "wb") as file:
        file.write(first)
    with open(os.path.join(folder, "parts", "whole.data"), "wb") as file:
        file.write(whole.tobytes())

    def tensor(name, array, **entries):
        out = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        out.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            out.external_data.add(key=key, value=str(value))
        return out

    sha1 = hashlib.sha1(first).hexdigest()
    tensors = [
        tensor("a", a, location="weights.data", offset=6, length=20, checksum=sha1),
        tensor("b", b, location="weights.data", offset=28, length=14, checksum=sha1),
        tensor("whole", whole, location="parts/whole.data"),
        numpy_helper.from_array(numpy.array([3.5]), "inside"),
    ]
    save("external/model.onnx", model_of(tensors))


def main():
    every = arrays()
    save("raw.onnx", model_of([numpy_helper.from_array(a, n) for n, a in every.items()]))
    save("typed.onnx", model_of([typed(n, a) for n, a in every.items()]))
    unpacked()
    shapes = [(), (0,), (1,), (0, 5), (2, 3, 4), (1, 1, 1, 1, 1, 1, 1, 2)]
    save("shapes.onnx", model_of([numpy_helper.from_array(numpy.ones(s, numpy.float32), f"s{i}") for i, s in enumerate(shapes)]))
    save(
        "sparse.onnx",
        model_of(
            [numpy_helper.from_array(numpy.array([1, 2]), "dense")],
            [
                sparse("linear", numpy.array([1.5, -2.0, 3.0], numpy.float32), [1, 5, 11], [3, 4]),
                sparse("coordinates", numpy.array([7, 8], numpy.int16), [[0, 1], [2, 0]], [3, 2]),
                sparse("empty", numpy.zeros(0), numpy.zeros(0), [4]),
            ],
        ),
    )
    words = helper.make_tensor("words", TensorProto.STRING, [3], [b"one", "größe".encode(), b""])
    number = numpy_helper.from_array(numpy.array([1.0], numpy.float32), "number")
    save("strings.onnx", model_of([words, number]))
    save("graph.onnx", whole_graph())
    external()


if __name__ == "__main__":
    main()
