"""Pickle streams put together opcode by opcode. Nothing here loads one.

`pickle.dumps` writes only what a pickler would; hostile streams are those that no pickler writes.
"""

import struct

MARK, STOP, POP, DUP = b"(", b".", b"0", b"2"
REDUCE, BUILD, OBJ, NEWOBJ, NEWOBJ_EX = b"R", b"b", b"o", b"\x81", b"\x92"
EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, NONE = b"}", b"]", b")", b"N"
TUPLE, TUPLE1, TUPLE2, TUPLE3 = b"t", b"\x85", b"\x86", b"\x87"
SETITEM, SETITEMS, APPEND, APPENDS = b"s", b"u", b"a", b"e"
STACK_GLOBAL, MEMOIZE, BINPERSID = b"\x93", b"\x94", b"Q"
ECHO = "echo weighbridge"


def proto(number):
    return b"\x80" + bytes([number])


def text(value):
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def short(value):
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def string(value):
    """The STRING opcode of protocol 0."""
    return b"S'" + value.encode() + b"'\n"


def raw(value):
    return b"B" + struct.pack("<I", len(value)) + value


def integer(value):
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def frame(length):
    return b"\x95" + struct.pack("<Q", length)


def put(index):
    return b"q" + bytes([index])


def get(index):
    return b"h" + bytes([index])


class Raw(bytes):
    """A part of a stream that stands for a value: `value` takes it as it is."""


def value(it):
    if isinstance(it, Raw):
        return bytes(it)
    if it is None:
        return NONE
    if it is True or it is False:
        return b"\x88" if it else b"\x89"
    if isinstance(it, int):
        return integer(it)
    if isinstance(it, float):
        return b"G" + struct.pack(">d", it)
    if isinstance(it, str):
        return text(it)
    if isinstance(it, bytes):
        return raw(it)
    if isinstance(it, tuple):
        return MARK + b"".join(map(value, it)) + TUPLE
    if isinstance(it, list):
        return EMPTY_LIST + MARK + b"".join(map(value, it)) + APPENDS
    if isinstance(it, dict):
        return EMPTY_DICT + MARK + b"".join(value(k) + value(v) for k, v in it.items()) + SETITEMS
    raise TypeError(type(it))


def name(module, attribute):
    """A GLOBAL."""
    return Raw(b"c" + module.encode() + b"\n" + attribute.encode() + b"\n")


def stack_name(module, attribute):
    return Raw(short(module) + short(attribute) + STACK_GLOBAL)


def call(callable, *arguments):
    """REDUCE of a callable, as a value."""
    return Raw(value(callable) + value(arguments) + REDUCE)


def pickled(body, number=4):
    return proto(number) + value(body) + STOP


SYSTEM = name("os", "system")
PAYLOAD = call(SYSTEM, ECHO)
"""The inert payload, as a value in a stream."""
HOSTILE = pickled(PAYLOAD)
"""A whole pickle that calls it."""
WEIGHTS = {"layer.weight": [0.5, 1.5], "layer.bias": [0.0]}
"""What a stream says beside it."""
