"""Writes the golden HDF5 files, each with a dump of what a scan must find in it.

    pip install h5py==3.14.0 tables==3.11.1
    python make.py FOLDER

A dump is `{"verdict": …, "rules": […]}` beside every file, and `kinds` that must be among those of the report. The files
are written by h5py, in its oldest and its newest layout, and by PyTables. The hostile ones refer to files that are not
there, and the pickles in them call nothing but `print`.
"""

import json
import os
import pickle
import sys

import h5py
import numpy

OUT = os.path.abspath(sys.argv[1])


def dump(name, verdict, rules=(), kinds=("hdf5",)):
    with open(os.path.join(OUT, name + ".json"), "w") as out:
        json.dump({"verdict": verdict, "rules": sorted(rules), "kinds": sorted(kinds)}, out, indent=1)
        out.write("\n")


class Call:
    def __reduce__(self):
        return print, ("inert",)


SEQUENTIAL = {
    "class_name": "Sequential",
    "config": {
        "name": "sequential",
        "layers": [
            {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "name": "in"}},
            {"class_name": "Dense", "config": {"units": 2, "activation": "relu", "kernel_initializer":
             {"class_name": "GlorotUniform", "config": {"seed": None}, "module": "keras.initializers", "registered_name": None}}},
        ],
    },
}
LAMBDA = {
    "class_name": "Sequential",
    "config": [{"class_name": "Lambda", "config": {"function": ["4wEAAAAAAAAA\n", None, None], "function_type": "lambda"}}],
}


def weights(name, libver, user_block=0):
    """Groups, many links and attributes (so that they are kept in heaps), every kind of layout and filter."""
    with h5py.File(os.path.join(OUT, name), "w", libver=libver, userblock_size=user_block) as file:
        file.attrs["keras_version"] = "2.11.0"
        file.attrs["model_config"] = json.dumps(SEQUENTIAL)
        group = file.create_group("model_weights/dense/dense")
        group["kernel:0"] = numpy.arange(8, dtype="f4").reshape(4, 2)
        group.create_dataset("packed", data=numpy.zeros((100, 100), "f4"), chunks=(10, 10), compression="gzip", shuffle=True)
        group.create_dataset("bias:0", data=numpy.zeros(2, "f4"))
        group.create_dataset("scalar", data=numpy.float32(1))
        group.create_dataset("empty", shape=(0, 4), dtype="f4")
        many = file.create_group("many")
        for i in range(40):
            many.create_group(f"group_with_a_long_name_{i:03}")
        many["soft"] = h5py.SoftLink("/model_weights")
        many["loop"] = file["/"]
        for i in range(20):
            many.attrs[f"attribute_{i}"] = f"text {i}"
        many.attrs["names"] = numpy.array([b"kernel:0", b"bias:0"])
        many.attrs["more"] = ["a", "bc", "def"]
        many.attrs["number"] = 5
    dump(name, "clean", kinds=("hdf5", "keras"))


def one(name, verdict, rules, make, libver="earliest", kinds=("hdf5",)):
    with h5py.File(os.path.join(OUT, name), "w", libver=libver) as file:
        make(file)
    dump(name, verdict, rules, kinds)


def virtual(source):
    def make(file):
        layout = h5py.VirtualLayout(shape=(4, 10), dtype="f4")
        for i in range(4):
            layout[i] = h5py.VirtualSource(source, "data", shape=(10,))
        file.create_virtual_dataset("joined", layout)
    return make


def main():
    weights("old.h5", "earliest")
    weights("new.h5", "latest")
    weights("user_block.h5", "earliest", 1024)
    one("lambda_old.h5", "dangerous", ["keras-lambda"], lambda f: f.attrs.update(model_config=json.dumps(LAMBDA)), kinds=("hdf5", "keras"))
    one("lambda_new.h5", "dangerous", ["keras-lambda"], lambda f: f.attrs.update(model_config=json.dumps(LAMBDA)), "latest", ("hdf5", "keras"))
    for version, libver in (("old", "earliest"), ("new", "latest")):
        one(f"external_link_{version}.h5", "dangerous", ["hdf5-external"],
            lambda f: f.create_group("a").__setitem__("out", h5py.ExternalLink("/etc/hostname", "/x")), libver)
        one(f"external_storage_{version}.h5", "dangerous", ["hdf5-external"],
            lambda f: f.create_dataset("kernel:0", shape=(8,), dtype="u1", external=[("/etc/hostname", 0, 8)]), libver)
    one("virtual.h5", "dangerous", ["hdf5-external"], virtual("/etc/other.h5"), "latest")
    one("virtual_same.h5", "clean", [], virtual("."), "latest")
    one("many_links.h5", "dangerous", ["hdf5-external"], many_links, "latest")
    one("shape_bomb.h5", "dangerous", ["hdf5-lies"],
        lambda f: f.create_dataset("kernel:0", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(64, 64), compression="gzip"))
    one("shape_bomb_contiguous.h5", "dangerous", ["hdf5-lies"],
        lambda f: f.create_dataset("kernel:0", shape=(1 << 20, 1 << 20), dtype="f4"), "latest")
    payload = pickle.dumps(Call(), 2)
    one("opaque.h5", "dangerous", ["pickle-call"], lambda f: f.create_dataset("object", data=numpy.void(payload)))
    one("bytes.h5", "dangerous", ["pickle-call"], lambda f: f.create_dataset("object", data=numpy.frombuffer(payload, "u1")))
    one("attribute.h5", "dangerous", ["pickle-call"], lambda f: f.attrs.update(state=numpy.void(payload)), "latest")
    tables()


def many_links(file):
    group = file.create_group("many")
    for i in range(1200):
        group[f"soft_link_number_{i:05}"] = h5py.SoftLink(f"/there/{i}")
    group["zz_last"] = h5py.ExternalLink("other.h5", "/x")


def tables():
    import tables as pytables

    with pytables.open_file(os.path.join(OUT, "tables.h5"), "w") as file:
        array = file.create_array("/", "numbers", numpy.arange(10))
        array.attrs.words = "some words."
        array.attrs.settings = {"a": [1, 2.5], "b": None}
    dump("tables.h5", "clean", kinds=("hdf5", "pytables"))
    with pytables.open_file(os.path.join(OUT, "tables_call.h5"), "w") as file:
        file.create_array("/", "numbers", numpy.arange(10)).attrs.settings = Call()
    dump("tables_call.h5", "dangerous", ["pickle-call"], ("hdf5", "pytables"))
    with pytables.open_file(os.path.join(OUT, "objects_call.h5"), "w") as file:
        rows = file.create_vlarray("/", "rows", pytables.ObjectAtom(), filters=pytables.Filters(complevel=5))
        rows.append([1, 2, 3])
        rows.append(Call())
    dump("objects_call.h5", "dangerous", ["pickle-call"], ("hdf5", "pytables"))


if __name__ == "__main__":
    main()
