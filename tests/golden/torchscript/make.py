"""Writes small TorchScript programs, each with a list of what torch says is in it.

python make.py FOLDER

The list is taken from the program that torch loads again: modules with their classes, methods with the names of their
arguments, constants with their bytes. Classes are defined in `programs.py`, under a relative path, which torch records.
"""

import json
import os
import sys
import types
import zipfile

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.abspath(sys.argv[1])
os.chdir(HERE)
programs = types.ModuleType("programs")
programs.__file__ = "programs.py"
sys.modules["programs"] = programs
exec(compile(open("programs.py", encoding="utf-8").read(), "programs.py", "exec"), programs.__dict__)


def constants(path):
    """The tensors of constants.pkl, in order, as torch's own reader gives them."""
    reader = torch._C.PyTorchFileReader(path)
    if reader.get_record("constants.pkl") == b"\x80\x02).":
        return []
    found = []
    for key in sorted((r for r in reader.get_all_records() if r.startswith("constants/")), key=lambda r: int(r[10:])):
        found.append(reader.get_record(key).hex())
    return found


def describe(path, module):
    """What torch says of a program."""
    listed = {"modules": [], "methods": {}, "constants": constants(path)}
    for name, part in module.named_modules(remove_duplicate=False):
        kind = part._c._type().qualified_name()
        listed["modules"].append([name, kind])
        for method in map(part._c._get_method, part._c._method_names()):
            listed["methods"][f"{kind}.{method.name}"] = [a.name for a in method.schema.arguments]
    listed["parameters"] = [name for name, _ in module.named_parameters()]
    listed["extra"] = sorted(n.split("/extra/")[1] for n in zipfile.ZipFile(path).namelist() if "/extra/" in n)
    with open(path + ".json", "w", encoding="utf-8") as file:
        json.dump(listed, file, indent=1)
        file.write("\n")


def main():
    torch.manual_seed(20)
    model = programs.Model().eval()
    ids = torch.tensor([[1, 2, 0], [3, 4, 4]])
    scripted, traced = torch.jit.script(model), torch.jit.trace(model, ids, check_trace=False)
    for name, module, extra in (
        ("scripted.pt", scripted, {"labels.json": '["a", "b"]'}),
        ("traced.pt", traced, {}),
        ("frozen.pt", torch.jit.freeze(scripted), {}),
    ):
        path = os.path.join(OUT, name)
        torch.jit.save(module, path, _extra_files=extra)
        describe(path, torch.jit.load(path))
    # The form for phones: the same, and bytecode beside it.
    path = os.path.join(OUT, "lite.ptl")
    scripted._save_for_lite_interpreter(path)
    describe(path, torch.jit.load(path))


if __name__ == "__main__":
    main()
