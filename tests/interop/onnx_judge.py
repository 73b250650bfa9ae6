"""Judges what is written as ONNX, by the `onnx` package. Each task is a line of JSON, and so is its answer, with what is
wrong in "faults".

`same`: {"a", "b"}: two models that are equal message for message, once external data are loaded.
`apart`: {"a", "b"}: the same, but that initializers may be spelled otherwise: their arrays are equal to the byte.
`dump`: {"file", "dump"}: the initializers of a file are those of a dump (see tests/golden/onnx/make.py).
`fill`: {"file"}: the first initializers of a model, as a safetensors file {"out"} with other numbers.
`into`: {"a", "weights", "b"}: b is a, but for the initializers that the weights have.

In all but `dump` the checker must accept b if it accepts a; of `dump`, it must accept the file.
"""

import json
import os
import sys

import numpy
import onnx
from onnx import TensorProto, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden", "onnx"))
import make  # noqa: E402


def accepted(path):
    try:
        onnx.checker.check_model(path)
        return None
    except Exception as error:
        return str(error).strip().splitlines()[0]


def checked(a, b, faults):
    """Whether the checker accepts the first, as it then must the second."""
    ok = accepted(a) is None
    if ok and (error := accepted(b)):
        faults.append(f"the checker refuses it: {error}")
    return ok


def text(model):
    return model.SerializeToString(deterministic=True)


def array(tensor):
    if tensor.data_type == TensorProto.STRING:
        return tensor.SerializeToString(deterministic=True)
    return make.raw(numpy_helper.to_array(tensor), make.NAMES[tensor.data_type])


def same(task):
    faults = []
    if text(onnx.load(task["a"])) != text(onnx.load(task["b"])):
        faults.append("the messages differ")
    return faults, checked(task["a"], task["b"], faults)


def initializers(model):
    """What the initializers are, taken out of the model; sparse ones stay."""
    out = {}
    for tensor in model.graph.initializer:
        out[tensor.name] = (tensor.data_type, list(tensor.dims), array(tensor))
    del model.graph.initializer[:]
    return out


def apart(task):
    faults, a, b = [], onnx.load(task["a"]), onnx.load(task["b"])
    if a.graph.sparse_initializer:
        # They become dense tensors, which is a choice and no fault; their arrays are judged by dumps.
        return faults, checked(task["a"], task["b"], faults)
    mine, theirs = initializers(a), initializers(b)
    for name in mine.keys() | theirs.keys():
        if mine.get(name) != theirs.get(name):
            faults.append(f"{name} differs")
    if text(a) != text(b):
        faults.append("the rest of the messages differs")
    return faults, checked(task["a"], task["b"], faults)


def dump(task):
    with open(task["dump"], encoding="utf-8") as file:
        want = json.load(file)
    found, faults = make.read(task["file"]), []
    for name in want.keys() | found.keys():
        keep = lambda e: {k: e[k] for k in ("dtype", "shape", "sha256")} if e else None
        if keep(want.get(name)) != keep(found.get(name)):
            faults.append(f"{name}: {found.get(name)} for {want.get(name)}")
    if error := accepted(task["file"]):
        faults.append(f"the checker refuses it: {error}")
    return faults, True


def fill(task):
    from safetensors.numpy import save_file

    tensors = {}
    for tensor in onnx.load(task["file"]).graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.DOUBLE):
            found = numpy_helper.to_array(tensor)
            tensors[tensor.name] = (numpy.arange(found.size) + 1).astype(found.dtype).reshape(found.shape)
    save_file(tensors, task["out"])
    return [], len(tensors)


def into(task):
    from safetensors.numpy import load_file

    faults, new = [], load_file(task["weights"])
    a, b = onnx.load(task["a"]), onnx.load(task["b"])
    mine, theirs = initializers(a), initializers(b)
    if list(mine) != list(theirs):
        faults.append("the names or their order differ")
    for name, (data_type, dims, data) in mine.items():
        want = new[name].tobytes() if name in new else data
        if theirs.get(name) != (data_type, dims, want):
            faults.append(f"{name} differs")
    if text(a) != text(b):
        faults.append("the rest of the messages differs")
    return faults, checked(task["a"], task["b"], faults)


def main():
    judge = {"same": same, "apart": apart, "dump": dump, "fill": fill, "into": into}[sys.argv[1]]
    for line in sys.stdin:
        task = json.loads(line)
        try:
            faults, checked = judge(task)
        except Exception as error:
            faults, checked = [f"{type(error).__name__}: {error}"], False
        print(json.dumps({"task": task, "faults": faults, "checked": checked}))


main()
