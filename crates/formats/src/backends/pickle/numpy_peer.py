"""NumPy's side of the tests of pickles.

`numpy_peer.py write FOLDER`: writes the arrays below in every protocol, and `expected.json` with what a reader must
find. `numpy_peer.py read FILE`: loads a pickle and prints each array as `name dtype shape hex`, then the rest.
"""

import json
import pickle
import sys

import numpy as np

CODES = ["b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16"]


def arrays():
    out = {code: np.array([[0, 1, 2], [3, 4, 125]]).astype(code) for code in CODES}
    out["big"] = np.arange(6, dtype=">f4").reshape(2, 3)
    out["big complex"] = np.array([1 + 2j], dtype=">c16")
    out["fortran"] = np.asfortranarray(np.arange(24, dtype="<i4").reshape(2, 3, 4))
    out["transposed"] = np.arange(24, dtype="<i2").reshape(2, 3, 4).transpose(1, 2, 0)
    out["sliced"] = np.arange(24, dtype="<i2").reshape(4, 6)[::2, 1::2]
    out["scalar"] = np.array(3.5)
    out["empty"] = np.zeros((2, 0, 3), dtype="f4")
    out["large"] = np.arange(5000, dtype="<f4")
    out["large fortran"] = np.asfortranarray(np.arange(6000, dtype=">f8").reshape(60, 100))
    out["read only"] = np.arange(2000, dtype="u1")
    out["read only"].flags.writeable = False
    return out


def contiguous(array):
    little = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(little).tobytes()


if sys.argv[1] == "write":
    held = arrays()
    shared = held["large"]
    scalars = [np.float32(1.5), np.int64(-3), np.bool_(True), np.uint64(2**64 - 1), np.complex64(1 - 2j), np.float16(0.5)]
    value = {
        "arrays": held,
        "again": [shared],
        "scalars": scalars,
        "text": np.array(["a", "b"]),
        "objects": np.array([None, 1], dtype=object),
        "dates": np.array(["2020-01-01"], dtype="M8[D]"),
        "bytes": b"x" * 3000,
        "keys": {b"k" * 2000: 1, b"k" * 1999 + b"l": 2},
    }
    for protocol in range(6):
        with open(f"{sys.argv[2]}/{protocol}.pkl", "wb") as file:
            pickle.dump(value, file, protocol)
    expected = {f"arrays.{k}": [v.dtype.str[1:], list(v.shape), contiguous(v).hex()] for k, v in held.items()}
    with open(f"{sys.argv[2]}/expected.json", "w") as file:
        json.dump(expected, file)
else:
    with open(sys.argv[2], "rb") as file:
        value = pickle.load(file)

    def walk(path, value):
        if isinstance(value, np.ndarray):
            print(path, value.dtype.str, list(value.shape), contiguous(value).hex())
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{path}.{key}", inner)
        elif isinstance(value, (list, tuple)):
            for i, inner in enumerate(value):
                walk(f"{path}.{i}", inner)
        else:
            print(path, repr(value))

    walk("", value)
