"""Writes the golden files of the joblib format: dumps of arrays of every kind, of scikit-learn's models and of a fitted
BERTopic, plain and in every compression.

python make.py FOLDER

Beside each file stands its dump: every array by the path to it, with what NumPy says of it. The paths are those that a
pickle has, found by asking each object how it reduces itself.
"""

import copyreg
import hashlib
import io
import json
import os
import pickle
import sys

import joblib
import numpy as np
import scipy.sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

OUT = os.path.abspath(sys.argv[1])
NAMES = {
    "b1": "BOOL", "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "u4": "U32", "i4": "I32", "u8": "U64", "i8": "I64",
    "f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64", "c16": "C128",
}  # fmt: skip
PLAIN = (str, bytes, bool, int, float, complex, type(None), np.generic, np.dtype, type, type(len), type(lambda: 0))


def flatten(value, name=""):
    """Yields (name, array of numbers) in the order of the pickle."""
    at = lambda part: f"{name}.{part}" if name else str(part)
    if isinstance(value, PLAIN):
        return
    if isinstance(value, np.ndarray):
        yield from array(value, name or "tensor")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            yield from flatten(item, at(index))
    elif type(value) is dict:
        for key, item in value.items():
            yield from flatten(item, at(key))
    else:
        call, args, state, items, entries = (tuple(value.__reduce_ex__(4)) + (None,) * 4)[:5]
        if call is copyreg.__newobj__:
            args = args[1:]
        for index, item in enumerate(args):
            yield from flatten(item, name if len(args) == 1 else at(index))
        for part in state if type(state) is tuple else (state,):
            yield from flatten(part, name)
        for index, item in enumerate(items or ()):
            yield from flatten(item, at(index))
        for key, item in entries or ():
            yield from flatten(item, at(key))


def array(value, name):
    if isinstance(value, np.ma.MaskedArray):
        if value.dtype.str[1:] in NAMES:
            yield f"{name}.data", value.data
            yield f"{name}.mask", np.ma.getmaskarray(value)
    elif value.dtype.hasobject:
        # In the file it is a list of its elements.
        yield from flatten(value.ravel().tolist(), name)
    elif value.dtype.names:
        for field in value.dtype.names:
            part = value[field]
            if part.dtype.str[1:] in NAMES:
                yield f"{name}.{field}", part
    elif value.dtype.str[1:] in NAMES:
        yield name, np.asarray(value)


def describe(value):
    data = value.astype(value.dtype.newbyteorder("<")).tobytes()
    entry = {"dtype": NAMES[value.dtype.str[1:]], "shape": list(value.shape)}
    entry["sha256"] = hashlib.sha256(data).hexdigest()
    if len(data) <= 64:
        entry["hex"] = data.hex()
    return entry


def write_dump(path, value):
    entries = {}
    for name, part in flatten(value):
        if name in entries:
            raise ValueError(f"two arrays are named {name}")
        entries[name] = describe(part)
    with open(f"{path}.json", "w", encoding="utf-8") as file:
        lines = [f"  {json.dumps(n)}: {json.dumps(e)}" for n, e in entries.items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n" if lines else "{}\n")


def arrays():
    out = {code: np.array([[0, 1, 2], [3, 4, 125]]).astype(code) for code in NAMES}
    grid = np.arange(24, dtype="<i4").reshape(2, 3, 4)
    return out | {
        "fortran": np.asfortranarray(grid),
        "transposed": grid.transpose(1, 2, 0),
        "big": np.arange(6, dtype=">f4").reshape(2, 3),
        "big fortran": np.asfortranarray(np.arange(6, dtype=">c16").reshape(2, 3)),
        "scalar": np.array(3.5),
        "empty": np.zeros((2, 0, 3), dtype="f4"),
        "matrix": np.matrix([[1, 2], [3, 4]]),
        "masked": np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 1, 0]),
        "records": np.array([(1, 2.5, b"ab"), (2, 3.5, b"c")], dtype=[("n", "u1"), ("x", ">f8"), ("name", "S2")]),
        "parts": np.array([(1, [1, 2, 3]), (2, [4, 5, 6])], dtype=[("n", "i2"), ("v", "<f4", (3,))]),
        "text": np.array(["a", "bcd"]),
        "bytes": np.array([b"a", b"bcd"]),
        "dates": np.array(["2020-01-01"], dtype="M8[D]"),
        "objects": np.array([1, None, "x", np.arange(3.0)], dtype=object),
        "number": np.float32(1.5),
        "last": np.arange(4, dtype="u1"),
    }


def models():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4))
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    texts = ["apple pear plum", "pear plum", "apple fig"]
    return {
        "forest": RandomForestClassifier(n_estimators=2, max_depth=2, random_state=0).fit(x, y),
        "boosting": HistGradientBoostingRegressor(max_iter=1, max_bins=8, random_state=0).fit(x, x[:, 1]),
        "pca": PCA(2, random_state=0).fit(x),
        "kmeans": KMeans(3, n_init=1, random_state=0).fit(x),
        "vectorizer": CountVectorizer().fit(texts),
        "pipeline": Pipeline([("scale", StandardScaler()), ("fit", LogisticRegression())]).fit(x, y),
        "csr": scipy.sparse.csr_matrix(np.diag([1.0, 0.0, 2.0])),
    }


def topics():
    """A BERTopic fitted to given embeddings, without a model of its own for them."""
    from bertopic import BERTopic
    from bertopic.dimensionality import BaseDimensionalityReduction

    words = [["apple", "pear", "plum", "fruit"], ["car", "wheel", "engine", "road"], ["sun", "rain", "cloud", "wind"]]
    rng = np.random.default_rng(1)
    docs = [" ".join(rng.choice(words[i % 3], 4)) for i in range(24)]
    embeddings = np.eye(3, 5)[np.arange(24) % 3] + rng.normal(scale=0.01, size=(24, 5))
    model = BERTopic(
        umap_model=BaseDimensionalityReduction(),
        hdbscan_model=KMeans(3, n_init=1, random_state=0),
        vectorizer_model=CountVectorizer(),
        embedding_model=None,
        verbose=False,
    )
    model.fit(docs, embeddings)
    return model


class NoPlace(io.BytesIO):
    """A stream that does not know where it is, into which joblib writes arrays without alignment."""

    def tell(self):
        raise io.UnsupportedOperation("tell")


def main():
    os.makedirs(OUT, exist_ok=True)

    def write(name, value, **options):
        path = os.path.join(OUT, name)
        joblib.dump(value, path, **options)
        write_dump(path, joblib.load(path))

    held = arrays()
    write("arrays.joblib", held)
    small = {name: held[name] for name in ("f4", "fortran", "big", "records", "objects", "last")}
    for method in ("zlib", "gzip", "bz2", "xz", "lzma", "lz4"):
        write(f"{method}.joblib", small, compress=(method, 3))
    # The same under names that say nothing.
    write("nameless", small)
    write("pickled.pkl", small)
    write("squeezed.bin", small, compress=("lz4", 1))
    # So much text stands before the first array that the beginning does not show what this is.
    late = {"text": "abcd" * 2000, "array": np.arange(5.0)}
    write("late.pkl", late)
    for protocol in range(6):
        write(f"protocol_{protocol}.joblib", small, protocol=protocol)
    for name, model in models().items():
        write(f"{name}.joblib", model)
    write("lone.joblib", np.arange(3.0))
    stream = NoPlace()
    joblib.dump(small, stream)
    with open(os.path.join(OUT, "unaligned.joblib"), "wb") as file:
        file.write(stream.getvalue())
    write_dump(os.path.join(OUT, "unaligned.joblib"), joblib.load(os.path.join(OUT, "unaligned.joblib")))
    model = topics()
    path = os.path.join(OUT, "bertopic.joblib")
    model.save(path, serialization="pickle", save_ctfidf=True, save_embedding_model=False)
    write_dump(path, joblib.load(path))
    # What a dump without arrays is: a plain pickle.
    with open(os.path.join(OUT, "vectorizer.joblib"), "rb") as file:
        pickle.load(file)


if __name__ == "__main__":
    main()
