"""Has torch and safetensors read what Weighbridge wrote, and holds it, bit for bit, against what it was made from.

python check.py compare REFERENCE FILE...   each FILE holds the tensors of REFERENCE
python check.py golden DUMP FILE...         each FILE holds the tensors of a golden dump
python check.py batch                       the same, from lines of JSON on standard input: {"reference": PATH,
                                            "files": [...]} or {"dump": PATH, "files": [...]}; with
                                            "trusted": true, torch loads with weights_only=False (files of the
                                            tests' own with ranges and slices, which weights_only refuses)

A .safetensors file is read by safetensors' load_file, a sharded set through its index. Any other file is read by
torch.load(weights_only=True), which must also agree with torch.load(mmap=True), and, being a zip, must pass
zipfile's testzip. One line of JSON is printed for each file: {"file", "tensors", "bytes", "read_by", "faults"}. The
exit code is 1 if a file has a fault, or if there was no file.
"""

import json
import os
import sys
import warnings
import zipfile

import torch
from safetensors.torch import load_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import dump  # noqa: E402

warnings.simplefilter("ignore")
# At most this many faults are told of one file.
MOST = 8


trusted = False


def torch_load(path, **options):
    return torch.load(path, map_location="cpu", weights_only=not trusted, **options)


def shards(path):
    with open(path, encoding="utf-8") as file:
        names = json.load(file)["weight_map"]
    return {name: os.path.join(os.path.dirname(path), shard) for name, shard in names.items()}


def read(path, faults):
    """The object in a file, as the real tools read it, and the names of these tools."""
    if path.endswith(".index.json"):
        found, ways = {}, []
        files = shards(path)
        for shard in sorted(set(files.values())):
            part, ways = read(shard, faults)
            expected = {name for name, file in files.items() if file == shard}
            if set(part) != expected:
                faults.append(f"{os.path.basename(shard)}: holds other names than the index says")
            found.update(part)
        return found, ways
    if path.endswith(".safetensors"):
        return load_file(path), ["load_file"]
    loaded, ways = torch_load(path), ["torch.load"]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            faults.append(f"zipfile finds a fault in {broken}")
        ways.append("zipfile")
        try:
            mapped = torch_load(path, mmap=True)
        except RuntimeError as error:
            # Only files of torch's own layout can be mapped; one that Weighbridge wrote must be.
            faults.append(f"torch.load(mmap=True): {error}")
        else:
            difference = compare(tensors_of(loaded), tensors_of(mapped))
            faults.extend(f"torch.load(mmap=True): {text}" for text in difference)
            ways.append("torch.load(mmap)")
    return loaded, ways


def tensors_of(value):
    found = {}
    for name, tensor in dump.flatten(value):
        if name in found:
            raise ValueError(f"two tensors are named {name}")
        found[name] = tensor
    return found


def names_differ(want, found):
    for name in want.keys() - found.keys():
        yield f"{name} is missing"
    for name in found.keys() - want.keys():
        yield f"{name} is too many"


def compare(want, found):
    """What differs between two dicts of tensors, as texts."""
    faults = list(names_differ(want, found))
    for name in want.keys() & found.keys():
        a, b = want[name], found[name]
        if a.dtype != b.dtype:
            faults.append(f"{name}: {b.dtype} for {a.dtype}")
        elif a.shape != b.shape:
            faults.append(f"{name}: shape {tuple(b.shape)} for {tuple(a.shape)}")
        elif not a.is_meta and dump.raw(a) != dump.raw(b):
            faults.append(f"{name}: other bytes")
    return faults


def against_dump(want, found):
    """What differs between a golden dump and a dict of tensors; meta tensors have no bytes to be kept."""
    want = {name: entry for name, entry in want.items() if not entry.get("meta")}
    faults = list(names_differ(want, found))
    for name in want.keys() & found.keys():
        entry, is_ = want[name], dump.describe(found[name])
        for key in ("dtype", "shape", "sha256"):
            if entry[key] != is_.get(key):
                faults.append(f"{name}: {key} {is_.get(key)} for {entry[key]}")
    return faults


def check(task):
    """Checks one task's files; prints a line for each. Returns how many were checked and how many have faults."""
    global trusted
    bad, trusted = 0, task.get("trusted", False)
    if "dump" in task:
        with open(task["dump"], encoding="utf-8") as file:
            want = json.load(file)
    else:
        path = task["reference"]
        want = tensors_of(read(path, [])[0] if path.endswith((".safetensors", ".json")) else torch_load(path))
    for path in task["files"]:
        faults, found, ways = [], {}, []
        try:
            loaded, ways = read(path, faults)
            found = tensors_of(loaded)
            faults.extend(against_dump(want, found) if "dump" in task else compare(want, found))
        except Exception as error:  # noqa: BLE001
            faults.append(f"{type(error).__name__}: {error}")
        bad += bool(faults)
        size = sum(t.nbytes for t in found.values() if not t.is_sparse)
        line = {"file": path, "tensors": len(found), "bytes": size, "read_by": ways, "faults": faults[:MOST]}
        if len(faults) > MOST:
            line["faults"].append(f"and {len(faults) - MOST} more")
        print(json.dumps(line, ensure_ascii=False), flush=True)
    return len(task["files"]), bad


def main():
    command, *rest = sys.argv[1:] or [""]
    if command == "compare" and len(rest) > 1:
        tasks = [{"reference": rest[0], "files": rest[1:]}]
    elif command == "golden" and len(rest) > 1:
        tasks = [{"dump": rest[0], "files": rest[1:]}]
    elif command == "batch" and not rest:
        tasks = [json.loads(line) for line in sys.stdin if line.strip()]
    else:
        sys.exit(__doc__)
    checked = bad = 0
    for task in tasks:
        files, faulty = check(task)
        checked, bad = checked + files, bad + faulty
    if checked == 0:
        sys.exit("no file was given")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
