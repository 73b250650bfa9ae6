"""Checks manifests with Python alone: a line of JSON a task on standard input, one a task on standard output.

The modes:
  docs   runs the snippet of docs/manifest.md, whose path is the task's `docs`, on the manifest `path`: `different`, or `error`.
  hashes recomputes the tensor hashes of a safetensors file `path` and its logical hash: `tensors`, `logical`.

BLAKE3 is written out here from its paper, in chunks of 1024 bytes and with the mode for deriving keys, so that nothing which
is judged computes its own judge; it is slow, and the files are small.
"""

import json
import re
import struct
import sys
import types

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64
MASK = 0xFFFFFFFF


def compress(chaining, words, counter, length, flags):
    """The compression function: eight words of state for the next block."""
    v = list(chaining) + list(IV[:4]) + [counter & MASK, counter >> 32, length, flags]
    m = list(words)

    def mix(a, b, c, d, x, y):
        v[a] = (v[a] + v[b] + x) & MASK
        v[d] ^= v[a]
        v[d] = (v[d] >> 16 | v[d] << 16) & MASK
        v[c] = (v[c] + v[d]) & MASK
        v[b] ^= v[c]
        v[b] = (v[b] >> 12 | v[b] << 20) & MASK
        v[a] = (v[a] + v[b] + y) & MASK
        v[d] ^= v[a]
        v[d] = (v[d] >> 8 | v[d] << 24) & MASK
        v[c] = (v[c] + v[d]) & MASK
        v[b] ^= v[c]
        v[b] = (v[b] >> 7 | v[b] << 25) & MASK

    for _ in range(7):
        for i in range(4):
            mix(i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1])
        for i in range(4):
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[8 + 2 * i], m[9 + 2 * i])
        m = [m[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]


def node(data, key, counter, flags):
    """The last compression of a run of chunks, not yet done: it is another one at the root."""
    if len(data) > 1024:
        half = 1024
        while half * 2 < len(data):
            half *= 2
        left = compress(*node(data[:half], key, counter, flags))
        right = compress(*node(data[half:], key, counter + half // 1024, flags))
        return key, left + right, 0, 64, flags | PARENT
    blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
    chaining = key
    for i, block in enumerate(blocks):
        marks = flags | (CHUNK_START if i == 0 else 0) | (CHUNK_END if i == len(blocks) - 1 else 0)
        last = (chaining, struct.unpack("<16I", block.ljust(64, b"\0")), counter, len(block), marks)
        if i < len(blocks) - 1:
            chaining = compress(*last)
    return last


def hash_with(data, key, flags):
    chaining, words, _, length, marks = node(data, key, 0, flags)
    return struct.pack("<8I", *compress(chaining, words, 0, length, marks | ROOT))


class Hash:
    def __init__(self, data=b"", derive_key_context=None):
        if derive_key_context is None:
            self.bytes = hash_with(data, IV, 0)
        else:
            key = struct.unpack("<8I", hash_with(derive_key_context.encode(), IV, CONTEXT))
            self.bytes = hash_with(data, key, MATERIAL)

    def digest(self):
        return self.bytes

    def hexdigest(self):
        return self.bytes.hex()


def snippet(path):
    """The code of a page's Python block."""
    with open(path, encoding="utf-8") as file:
        return re.search(r"```python\n(.*?)```", file.read(), re.S).group(1)


def with_blake3():
    """Has `import blake3` find this file's."""
    module = types.ModuleType("blake3")
    module.blake3 = Hash
    sys.modules["blake3"] = module


def docs(task):
    scope = {}
    exec(snippet(task["docs"]), scope)
    try:
        return {"different": scope["check"](task["path"])}
    except (AssertionError, ValueError) as e:
        return {"error": str(e) or type(e).__name__}


def hashes(task):
    scope = {}
    exec(snippet(task["docs"]), scope)
    with open(task["path"], "rb") as file:
        raw = file.read()
    (length,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header.pop("__metadata__", None)
    tensors = {
        name: (entry["dtype"], entry["shape"], data[entry["data_offsets"][0] : entry["data_offsets"][1]])
        for name, entry in header.items()
    }
    one = {name: scope["tensor_hash"](name, *tensor).hex() for name, tensor in tensors.items()}
    return {"tensors": one, "logical": scope["logical_hash"](tensors)}


if __name__ == "__main__":
    with_blake3()
    mode = {"docs": docs, "hashes": hashes}[sys.argv[1]]
    for line in sys.stdin:
        print(json.dumps(mode(json.loads(line))), flush=True)
