"""Archives byte by byte, so that they can lie: zip, tar, 7z, and frames of compression."""

import io
import struct
import tarfile
import zlib


class Entry:
    """A member of a zip; what is set beside name and data is what it lies about."""

    def __init__(self, name, data, **lies):
        self.name = name.encode() if isinstance(name, str) else name
        self.data = data
        self.lies = lies

    def __getattr__(self, key):
        return self.lies.get(key)


def zipped(*entries, prefix=b"", comment=b"", count=None, offset_by=0, cut=None, zip64=None, suffix=b""):
    """A zip of entries; `count`, `offset_by`, `cut` and `zip64` are lies of its directory."""
    out, directory, starts = bytearray(prefix), bytearray(), []
    for entry in entries:
        data = entry.data
        method = entry.method if entry.method is not None else 0
        stored = data
        if method == 8 and not entry.raw:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            stored = packer.compress(data) + packer.flush()
        crc = entry.crc if entry.crc is not None else zlib.crc32(data)
        size = entry.size if entry.size is not None else len(data)
        packed = entry.packed if entry.packed is not None else len(stored)
        flags = entry.flags or 0
        local = entry.local_name if entry.local_name is not None else entry.name
        at = entry.at if entry.at is not None else len(out)
        starts.append(at)
        if entry.at is None:
            local_flags = entry.local_flags if entry.local_flags is not None else flags
            out += struct.pack("<4s5H3I2H", b"PK\3\4", 20, local_flags, method, 0, 0x21, crc, packed, size, len(local), 0)
            out += local + stored
        made_by = 3 << 8 | 20
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", made_by, 20, flags, method, 0, 0x21, crc, packed, size,
            len(entry.name), len(entry.extra or b""), 0, 0, 0, entry.mode or 0, at,
        )
        directory += entry.name + (entry.extra or b"")
    start = len(out)
    if cut is not None:
        directory = directory[:cut]
    out += directory
    number = len(entries) if count is None else count
    if zip64 is not None:
        at = len(out)
        out += struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 20, 20, 0, 0, zip64, zip64, len(directory), start)
        out += struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
        number = 0xFFFF
    out += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, number, number, len(directory), start + offset_by, len(comment)) + comment
    return bytes(out + suffix)


def tarred(*members, mode=""):
    """A tar of (name, data) pairs, or of TarInfo objects with data."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{mode}" if mode else "w") as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.type == tarfile.REGTYPE:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def seven(data):
    """A 7z archive of one stored member: signature, header by header, no compression."""
    name = "data.pkl".encode("utf-16-le") + b"\0\0"
    pack = b"\x06\x00\x01\x09" + number(len(data)) + b"\x00"
    folder = b"\x07\x0b\x01\x00\x01\x01\x00\x0c" + number(len(data)) + b"\x00"
    sub = b"\x08\x0a\x01" + struct.pack("<I", zlib.crc32(data)) + b"\x00"
    files = b"\x05\x01\x11" + number(len(name) + 1) + b"\x00" + name + b"\x00"
    header = b"\x01\x04" + pack + folder + sub + b"\x00" + files + b"\x00"
    start = struct.pack("<QQI", len(data), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\0\x04" + struct.pack("<I", zlib.crc32(start)) + start + data + header


def number(value):
    """A number as 7z writes it."""
    if value < 0x80:
        return bytes([value])
    return bytes([0x80 | value >> 8, value & 0xFF])


def zstd(data):
    """A zstd frame of raw blocks."""
    out = b"\x28\xb5\x2f\xfd" + bytes([0b10100000]) + struct.pack("<I", len(data))
    chunks = [data[i : i + 100_000] for i in range(0, len(data), 100_000)] or [b""]
    for at, chunk in enumerate(chunks):
        last = at == len(chunks) - 1
        out += struct.pack("<I", len(chunk) << 3 | last)[:3] + chunk
    return out


def npy(header, data, version=1):
    """A .npy file of this header text."""
    width = "<H" if version == 1 else "<I"
    text = header.encode("latin-1")
    room = -(len(text) + 1 + 8 + struct.calcsize(width)) % 64
    text += b" " * room + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(width, len(text)) + text + data
