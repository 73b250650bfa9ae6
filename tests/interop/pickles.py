"""Python's side of the tests of pickles that Weighbridge writes.

`pickles.py objects FOLDER`: loads each pickle of `pickle_objects.rs` with `pickle` and with `joblib`, and uses what it
holds.
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


if sys.argv[1] == "objects":
    files = sorted(pathlib.Path(sys.argv[2]).iterdir())
    for file in files:
        with open(file, "rb") as stream:
            check_objects(pickle.load(stream))
        check_objects(joblib.load(file))
    print(len(files), "files are as they should be")
else:
    sys.exit(f"unknown task {sys.argv[1]}")
