"""Judges TorchScript exports: what export_judge.py has transformers compute, compared with the program that
`torch.jit.load` runs. Modes and tasks are that script's; "onnx" names the program."""

import json
from types import SimpleNamespace

import export_judge
import torch
from safetensors.torch import load_file

# As in ONNX, so that the tasks of both judges read the same.
TYPES = {"int64": torch.int64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Program(export_judge.Judge):
    """A program, loaded by torch."""

    def __init__(self, task):
        self.task, self.faults, self.worst = task, [], 0.0
        self.dtype = task.get("compute", task.get("dtype", "f32"))
        extra = {"weighbridge.json": ""}
        self.module = torch.jit.load(task["onnx"], _extra_files=extra)
        about = json.loads(extra["weighbridge.json"])
        self.listed, self.outputs = about["inputs"], about["outputs"]
        self.inputs = {}
        for entry in self.listed:
            dims = [SimpleNamespace(dim_value=d if isinstance(d, int) else 0) for d in entry["shape"]]
            self.inputs[entry["name"]] = SimpleNamespace(shape=SimpleNamespace(dim=dims), elem_type=0)
        names = [a.name for a in self.module.forward.schema.arguments][1:]
        self.expect(names == [entry["argument"] for entry in self.listed], f"arguments {names}")
        self.parameters()

    def parameters(self):
        """The program's parameters are the checkpoint's, by name, number for number."""
        kept = load_file(f"{self.task['folder']}/model.safetensors")
        own = dict(self.module.named_parameters())
        self.expect(len(own) > 4, f"{len(own)} parameters")
        for name, tensor in own.items():
            if name not in kept:
                self.faults.append(f"parameter {name} is none of the checkpoint's")
            elif self.task.get("dtype", "f32") == "f32" and not torch.equal(tensor, kept[name]):
                self.faults.append(f"parameter {name} differs from the checkpoint's")

    def run(self, values):
        given = []
        for entry in self.listed:
            if entry["name"] not in values:
                raise ValueError(f"the program wants {entry['name']}, which is not among {sorted(values)}")
            given.append(torch.as_tensor(values[entry["name"]]).to(TYPES[entry["dtype"]]))
        with torch.no_grad():
            # Twice: the second run is of what torch makes of the program when it has seen the first.
            for _ in range(2):
                made = self.module(*given)
        made = made if isinstance(made, tuple) else (made,)
        self.expect(len(made) == len(self.outputs), f"{len(made)} outputs")
        return {name: t.float().numpy() for name, t in zip(self.outputs, made)}


export_judge.Judge = Program
export_judge.NUMPY[0] = export_judge.np.float32
export_judge.main()
