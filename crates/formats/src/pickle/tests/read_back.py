"""Reads pickles and compares what they hold with an expression.

Input: lines of `<hex> <expression>`. Output: one line for each, `ok` or what is different. Nothing here calls
Weighbridge: it is Python's own opinion of what was written.
"""

import pickle
import struct
import sys
from collections import Counter, OrderedDict


def with_metadata():
    o = OrderedDict(w=1)
    o._metadata = OrderedDict({"": {"version": 1}})
    return o


def shared():
    a = [1]
    t = (a, a)
    return [a, a, t, t]


def cycle():
    a = []
    t = (a, 1)
    a.append(t)
    a.append(a)
    return t


def show(o, up=()):
    """Text that differs whenever type, value, order or identity along a path differ."""
    if id(o) in up:
        return f"<up {up[::-1].index(id(o))}>"
    inner = (*up, id(o))
    kind = type(o).__name__
    if isinstance(o, float):
        return struct.pack(">d", o).hex()
    if isinstance(o, complex):
        return f"{show(o.real)} {show(o.imag)}i"
    if isinstance(o, dict):
        body = ", ".join(f"{show(k, inner)}: {show(v, inner)}" for k, v in o.items())
        attributes = show(vars(o), inner) if getattr(o, "__dict__", None) else ""
        return f"{kind}{{{body}}}{attributes}"
    if isinstance(o, (set, frozenset)):
        return f"{kind}({sorted(show(x, inner) for x in o)})"
    if isinstance(o, (list, tuple)):
        return f"{kind}({', '.join(show(x, inner) for x in o)})"
    return f"{kind} {o!r}"


for line in sys.stdin:
    data, expression = line.split(maxsplit=1)
    try:
        got = show(pickle.loads(bytes.fromhex(data)))
        # A lone surrogate stands as U+FFFD where Weighbridge has read it.
        want = show(eval(expression)).replace("\\ud800", "\ufffd")
        print("ok" if got == want else f"{expression.strip()}: {got} is not {want}".encode("ascii", "replace"))
    except Exception as e:
        print(f"{expression.strip()}: {e!r}".encode("ascii", "replace"))
