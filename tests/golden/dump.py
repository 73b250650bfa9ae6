"""What a reader must find in a file: every tensor of a Python object, by name, with its dtype, shape and bytes.

The names: dict keys, list and tuple indices and module paths, joined by dots. A str key stands as it is, an int key
as its decimals, any other key as its repr. A bare tensor at the root is `tensor`. A module gives its parameters and
buffers under their dotted names, a name for each path that leads to a tied one. What is not one dense tensor:

  sparse COO           NAME.indices, NAME.values
  CSR, BSR             NAME.crow_indices, NAME.col_indices, NAME.values
  CSC, BSC             NAME.ccol_indices, NAME.row_indices, NAME.values
  quantized            NAME (the stored integers); per channel also NAME.scales (F64), NAME.zero_points (I64)
  nested (strided)     NAME.values (the buffer of all components), NAME.sizes, NAME.strides, NAME.offsets
  wrapper subclass     NAME.ATTRIBUTE for each tensor of its state; another subclass: NAME, and those
  meta                 NAME with dtype and shape, and `meta`: true in place of bytes

Dtypes are spelled as safetensors does, with C32, C128, BITS8 and BITS16 in its manner where it has none. Shapes count
elements: those of F4 are twice torch's, which counts pairs, in the last dimension. Bytes are contiguous and
little-endian. `storage` tells which tensors share one: the same number, the same storage.
"""

import hashlib
import json

import torch

NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float4_e2m1fn_x2: "F4",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex32: "C32",
    torch.complex64: "C64",
    torch.complex128: "C128",
    torch.bits8: "BITS8",
    torch.bits16: "BITS16",
}
COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}
# Up to this many bytes are shown in the dump itself, for whoever reads it to find a fault.
SHOWN = 64


def raw(tensor):
    """The tensor's contiguous little-endian bytes."""
    t = tensor.detach().resolve_conj().resolve_neg().cpu()
    if t.numel() == 0:
        return b""
    if t.dtype in (torch.bits8, torch.bits16):
        # These have no operator but copies of whole storages.
        if not t.is_contiguous():
            raise ValueError("opaque bits with strides")
        size, start = t.element_size(), t.storage_offset()
        return bytes(t.untyped_storage())[start * size : (start + t.numel()) * size]
    if t.element_size() == 1:
        # Some one-byte types cannot be made contiguous by themselves.
        t = t.view(torch.uint8)
    return t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def flatten(value, name=""):
    """Yields (name, dense tensor) in the order of the object."""
    at = lambda part: f"{name}.{part}" if name else str(part)
    if isinstance(value, torch.Tensor):
        yield from parts(value, name or "tensor")
    elif isinstance(value, torch.nn.Module):
        for part, tensor in value.named_parameters(remove_duplicate=False):
            yield from flatten(tensor, at(part))
        for part, tensor in value.named_buffers(remove_duplicate=False):
            yield from flatten(tensor, at(part))
    elif isinstance(value, dict):
        for key, item in value.items():
            plain = isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool))
            yield from flatten(item, at(str(key) if plain else repr(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from flatten(item, at(index))


def parts(tensor, name):
    """The dense tensors that one tensor object consists of."""
    wrapper = getattr(type(tensor), "WRAPPER", False)
    if tensor.is_quantized:
        yield name, tensor.int_repr()
        if tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams):
            yield f"{name}.scales", tensor.q_per_channel_scales()
            yield f"{name}.zero_points", tensor.q_per_channel_zero_points()
    elif tensor.layout == torch.sparse_coo:
        yield f"{name}.indices", tensor._indices()
        yield f"{name}.values", tensor._values()
    elif tensor.layout in COMPRESSED:
        for part in COMPRESSED[tensor.layout]:
            yield f"{name}.{part}", getattr(tensor, part)()
        yield f"{name}.values", tensor.values()
    elif tensor.is_nested:
        yield f"{name}.values", tensor.values()
        yield f"{name}.sizes", tensor._nested_tensor_size()
        yield f"{name}.strides", tensor._nested_tensor_strides()
        yield f"{name}.offsets", tensor._nested_tensor_storage_offsets()
    elif not wrapper:
        yield name, tensor
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        state = vars(tensor) if hasattr(tensor, "__dict__") else {}
        for attribute, item in state.items():
            if isinstance(item, torch.Tensor):
                yield from flatten(item, f"{name}.{attribute}")


def describe(tensor):
    """The dump's entry for one dense tensor."""
    shape = list(tensor.shape)
    if tensor.dtype == torch.float4_e2m1fn_x2 and shape:
        shape[-1] *= 2
    entry = {"dtype": NAMES[tensor.dtype], "shape": shape}
    if tensor.requires_grad:
        entry["requires_grad"] = True
    if tensor.is_meta:
        entry["meta"] = True
        return entry
    data = raw(tensor)
    entry["sha256"] = hashlib.sha256(data).hexdigest()
    if len(data) <= SHOWN:
        entry["hex"] = data.hex()
    return entry


def dump(value):
    """The whole dump of an object."""
    entries, ranges = {}, []
    # Held until the end: the address of a freed storage could be another's next.
    held = list(flatten(value))
    for name, tensor in held:
        if name in entries:
            raise ValueError(f"two tensors are named {name}")
        entries[name] = describe(tensor)
        storage = None if tensor.is_meta else tensor.untyped_storage()
        # What a conjugate or negative view shows is not what its storage holds.
        if storage is not None and storage.nbytes() and not tensor.is_conj() and not tensor.is_neg():
            ranges.append((storage.data_ptr(), storage.data_ptr() + storage.nbytes(), name))
    for number, names in enumerate(overlapping(ranges)):
        for name in names:
            entries[name]["storage"] = number
    return entries


def overlapping(ranges):
    """The names of each run of memory that more than one tensor lies in, in the order of the tensors."""
    groups, end = [], 0
    for start, stop, name in sorted(ranges):
        if start >= end:
            groups.append(set())
        groups[-1].add(name)
        end = max(end, stop)
    order = {name: at for at, (_, _, name) in enumerate(ranges)}
    shared = [sorted(names, key=order.get) for names in groups if len(names) > 1]
    return sorted(shared, key=lambda names: order[names[0]])


def write(path, value):
    """Writes PATH.json; returns the entries. An object without tensors must be asked for by its maker."""
    entries = dump(value)
    with open(f"{path}.json", "w", encoding="utf-8") as file:
        lines = [f"  {json.dumps(n, ensure_ascii=False)}: {json.dumps(e)}" for n, e in entries.items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n" if lines else "{}\n")
    return entries
