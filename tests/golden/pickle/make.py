"""Writes the golden files of the pickle format: plain pickles of Python values, in every protocol.

python make.py FOLDER

None of them holds a tensor, so each file's dump is empty. The files of one name hold the same values in each protocol,
so whatever a reader makes of one of them it must make of all six.
"""

import collections
import fractions
import os
import pickle
import sys

OUT = os.path.abspath(sys.argv[1])


class Settings:
    """A class that no reader has."""

    def __init__(self):
        self.rate = 0.5
        self.names = ["a", "b"]


class Stated:
    """A class with a state of its own making, and arguments for its maker."""

    def __new__(cls, first, second=None):
        self = super().__new__(cls)
        self.first, self.second = first, second
        return self

    def __getnewargs__(self):
        return (self.first,)

    def __getstate__(self):
        return {"second": self.second}

    def __setstate__(self, state):
        self.second = state["second"]


class Items(list):
    """A list with attributes: appended items and a state."""


class Table(dict):
    """A dict with attributes: set items and a state."""


def values():
    return {
        "none": None,
        "bools": [True, False],
        "ints": [0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, -(2**31), 2**31, 2**63, -(2**63), 2**64, -(10**40), 2**2100],
        "floats": [0.0, -0.0, 1.5, -1e300, 5e-324, float("inf"), float("-inf"), float("nan")],
        "complex": complex(1.5, -2.0),
        "text": ["", "plain", "naïve 模型 \U0001f3cb", "nul\0inside", "line\nbreak\\ \r\x1a", "x" * 300],
        "bytes": [b"", b"\x00\xff\n", b"y" * 300],
        "bytearray": bytearray(b"\x00ab"),
        "sets": [set(), {1}, frozenset(), frozenset({"a"})],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "keys": {0: "a", (1, "b"): "c", None: "d", 1.5: "e", b"k": "f", True and 7: "g"},
        "empty": [[], {}],
        "long": list(range(1200)),
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "range": range(3),
        "type": int,
        "function": len,
    }


def shared():
    one = ["shared"]
    key = ("tuple", "twice")
    return {"first": one, "second": one, "tuples": [key, key], "deep": [[one]]}


def cyclic():
    """A list and a dict that hold themselves, and a tuple in a cycle with a list."""
    own = [1]
    own.append(own)
    table = {}
    table["self"] = table
    through = []
    pair = (through, 2)
    through.append(pair)
    return {"list": own, "dict": table, "tuple": pair}


def objects():
    items = Items([1, 2])
    items.note = "an attribute"
    table = Table(a=1)
    table.note = "another"
    return {
        "plain": Settings(),
        "stated": Stated("x", 2),
        "items": items,
        "table": table,
        "reduced": fractions.Fraction(3, 4),
        "ellipsis": ...,
        "default": collections.defaultdict(list, {"a": [1]}),
        "counter": collections.Counter("abca"),
        "deque": collections.deque([1, 2], maxlen=3),
    }


def deep():
    """A hundred lists, one in the other."""
    inner = ["core"]
    for _ in range(99):
        inner = [inner]
    return inner


def write(name, make, protocol):
    path = os.path.join(OUT, name)
    with open(path, "wb") as file:
        pickle.dump(make(), file, protocol)
    with open(path, "rb") as file:
        pickle.load(file)
    with open(f"{path}.json", "w", encoding="utf-8") as file:
        file.write("{}\n")


def main():
    os.makedirs(OUT, exist_ok=True)
    for protocol in range(6):
        for make in (values, shared, cyclic, objects, deep):
            write(f"{make.__name__}_{protocol}.pkl", make, protocol)


if __name__ == "__main__":
    main()
