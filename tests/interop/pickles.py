"""Python's side of the tests of pickles that Weighbridge writes.

`pickles.py objects FOLDER`: loads each pickle of `pickle_objects.rs` with `pickle` and with `joblib`, and uses what it
holds.

`pickles.py serde FOLDER`: loads `ours` of `pickle_serde.rs`, holds it against the same value written here, and writes
that in every protocol.
"""

import pathlib
import pickle
import sys

import joblib
import numpy as np


def check_objects(value):
    counts = value["vectorizer"].transform(["pear plum pear"]).toarray()
    assert counts.tolist() == [[0, 2, 1]] and counts.dtype == np.int64, counts
    matrix = value["ctfidf"]
    assert matrix.format == "csr", matrix
    assert matrix.toarray().tolist() == [[0.0, 0.0, 0.5], [0.25, 2.0, 0.0]], matrix
    assert (matrix @ np.eye(3)).shape == (2, 3)
    score, topic = value["scores"]
    assert type(score) is np.float32 and score == 1.5, repr(score)
    assert type(topic) is np.int64 and topic == -1, repr(topic)


RUN = {
    "name": "naïve 模型 \U0001f3cb\n",
    "epochs": 3,
    "widest": (-(2**127), 2**128 - 1),
    "rate": 1e-3,
    "resumed": None,
    "tags": ["a", ""],
    "losses": {0: 0.5, 2**64 - 1: 0.25},
    "spans": {(-1, 1): "x"},
    "schedule": ["Constant", {"Linear": 0.5}, {"Steps": (10, 0.1)}, {"Cosine": {"warmup": 5, "floor": None}}],
}


def check_serde(folder):
    ours = pickle.loads((folder / "ours").read_bytes())
    assert repr(ours) == repr(RUN), ours
    for protocol in range(6):
        (folder / f"theirs_{protocol}").write_bytes(pickle.dumps(RUN, protocol))


if sys.argv[1] == "serde":
    check_serde(pathlib.Path(sys.argv[2]))
elif sys.argv[1] == "objects":
    files = sorted(pathlib.Path(sys.argv[2]).iterdir())
    for file in files:
        with open(file, "rb") as stream:
            check_objects(pickle.load(stream))
        check_objects(joblib.load(file))
    print(len(files), "files are as they should be")
else:
    sys.exit(f"unknown task {sys.argv[1]}")
