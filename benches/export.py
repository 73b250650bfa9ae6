"""An ONNX export by weighbridge beside `cp` of the weights, torch.onnx.export and optimum-onnx, and what they run like.

python export.py --work DIR --bin WEIGHBRIDGE [--optimum PYTHON] [--runs N] [--gib G] [--threads N] [--json OUT]
python export.py torch|optimum MODEL_DIR OUT_DIR TASK     (what the above starts; one export in a process of its own)

- The exports: a random BERT of `gib` GiB, saved by transformers. Every tool is a whole process, start-up and imports
  included, and its peak memory is what the kernel counts for it. What matters of memory is its private part: a file
  that is mapped is counted where it is touched. The slow tools run once.
- The runs: a random BERT and GPT-2 of the usual base sizes, exported by each tool, and run in ONNX Runtime over the same
  input, with the same threads, in turns. The time is the runtime's own: the event `model_run` of its profile.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


# --- One export, in a process of its own ------------------------------------------------------------


def export_torch(folder, out, task):
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    os.makedirs(out, exist_ok=True)
    kind = AutoModelForCausalLM if task == "text-generation" else AutoModel
    model = kind.from_pretrained(folder, attn_implementation="eager").eval()
    model.config.use_cache = False
    ids = torch.ones(2, 16, dtype=torch.int64)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("sequence")
    torch.onnx.export(
        model,
        (),
        os.path.join(out, "model.onnx"),
        kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        dynamic_shapes={"input_ids": {0: batch, 1: length}, "attention_mask": {0: batch, 1: length}},
        dynamo=True,
        external_data=True,
    )


def export_optimum(folder, out, task):
    from optimum.exporters.onnx import main_export

    main_export(folder, output=out, task=task, do_validation=False, no_post_process=True)


# --- The table of exports ---------------------------------------------------------------------------


def make_model(folder, kind, **sizes):
    """A random model as transformers saves it; made once."""
    if os.path.exists(os.path.join(folder, "config.json")):
        return folder
    import torch
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    if kind == "bert":
        model = BertModel(BertConfig(**sizes))
    else:
        model = GPT2LMHeadModel(GPT2Config(**sizes))
    model.save_pretrained(folder)
    return folder


def exports(arguments, process, measure, show):
    layers = max(1, round((arguments.gib * 2**30 / 4 - 32e6) / 12.6e6))
    folder = make_model(
        os.path.join(arguments.work, "bert"),
        "bert",
        hidden_size=1024,
        num_attention_heads=16,
        intermediate_size=4096,
        num_hidden_layers=layers,
    )
    weights = os.path.join(folder, "model.safetensors")
    print(f"\nExport of a BERT with {layers} layers, {os.path.getsize(weights) / 2**30:.2f} GiB of weights")
    out = os.path.join(arguments.work, "out")
    to = lambda name: os.path.join(out, name)
    own = [arguments.bin, "export", "onnx", folder]
    more = ["--quiet", "--no-fsync"]
    this = os.path.abspath(__file__)

    class Out:
        @staticmethod
        def clear():
            shutil.rmtree(out, ignore_errors=True)
            os.makedirs(out)

    quick = {
        "cp": process("cp", weights, to("copy")),
        "weighbridge": process(*own, to("f32.onnx"), *more),
        "weighbridge f16": process(*own, to("f16.onnx"), "--dtype", "f16", *more),
        "weighbridge int8": process(*own, to("int8.onnx"), "--quantize", "int8", *more),
        "weighbridge int4": process(*own, to("int4.onnx"), "--quantize", "int4", *more),
    }
    result = {"quick": show("quick tools", *measure(quick, Out, arguments.runs, True, 4))}
    slow = {"torch.onnx.export": process(sys.executable, this, "torch", folder, to("torch"), "feature-extraction")}
    if arguments.optimum:
        slow["optimum-onnx"] = process(arguments.optimum, this, "optimum", folder, to("optimum"), "feature-extraction")
    for name, way in slow.items():
        Out.clear()
        seconds, peak = way()
        ratio = seconds / result["quick"]["median_s"]["weighbridge"]
        print(f"  {name:32s} {seconds * 1e3:9.1f} ms  {ratio:.1f}x weighbridge  {peak:.0f} MiB", flush=True)
        result[name] = {"seconds": seconds, "peak_rss_mib": peak}
    Out.clear()
    return result


# --- The table of runs ------------------------------------------------------------------------------


class Profiled:
    """A model in ONNX Runtime, with the runtime's own clock."""

    def __init__(self, path, threads, work):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(work, "profile")
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = [i.name for i in self.session.get_inputs()]

    def run(self, feed):
        return self.session.run(None, {name: feed[name] for name in self.names})

    def times(self):
        path = self.session.end_profiling()
        with open(path, encoding="utf-8") as file:
            events = json.load(file)
        os.unlink(path)
        return [e["dur"] / 1e6 for e in events if e.get("name") == "model_run"]


def runs(arguments):
    import numpy

    cases = {
        "BERT base": ("bert", "feature-extraction", {}),
        "GPT-2": ("gpt2", "text-generation", {}),
    }
    result = {}
    for case, (kind, task, sizes) in cases.items():
        folder = make_model(os.path.join(arguments.work, f"base-{kind}"), kind, **sizes)
        models = os.path.join(arguments.work, f"base-{kind}-onnx")
        at = lambda name: os.path.join(models, name, "model.onnx")
        os.makedirs(os.path.join(models, "weighbridge"), exist_ok=True)
        command = [arguments.bin, "export", "onnx", folder, at("weighbridge"), "--task", task, "--force", "--quiet"]
        subprocess.run(command, check=True)
        tools = ["weighbridge", "torch"]
        this = os.path.abspath(__file__)
        if not os.path.exists(at("torch")):
            subprocess.run([sys.executable, this, "torch", folder, os.path.dirname(at("torch")), task],
                           check=True, stdout=subprocess.DEVNULL)
        if arguments.optimum:
            tools.append("optimum")
            if not os.path.exists(at("optimum")):
                subprocess.run([arguments.optimum, this, "optimum", folder, os.path.dirname(at("optimum")), task],
                               check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for batch, length in [(1, 16), (1, 128), (8, 128)]:
            ids = numpy.random.default_rng(0).integers(1, 30000, (batch, length), dtype=numpy.int64)
            feed = {
                "input_ids": ids,
                "attention_mask": numpy.ones_like(ids),
                "token_type_ids": numpy.zeros_like(ids),
                "position_ids": numpy.arange(length, dtype=numpy.int64)[None].repeat(batch, 0),
            }
            sessions = {name: Profiled(at(name), arguments.threads, arguments.work) for name in tools}
            outputs = {}
            for turn in range(arguments.runs * 4 + 2):
                for name in tools if turn % 2 else reversed(tools):
                    outputs[name] = sessions[name].run(feed)[0]
            apart = max(float(numpy.abs(outputs[n] - outputs["weighbridge"]).max()) for n in tools)
            times = {name: session.times()[2:] for name, session in sessions.items()}
            medians = {name: statistics.median(t) for name, t in times.items()}
            line = f"{case}, batch {batch}, length {length}"
            print(f"\n{line} (outputs at most {apart:.1e} apart)")
            for name, median in sorted(medians.items(), key=lambda item: item[1]):
                print(f"  {name:16s} {median * 1e3:8.2f} ms (min {min(times[name]) * 1e3:.2f})"
                      f"  {median / medians['weighbridge']:.2f}x weighbridge", flush=True)
            result[line] = {"median_s": medians, "min_s": {n: min(t) for n, t in times.items()}, "apart": apart}
    return result


def main():
    if len(sys.argv) == 5 and sys.argv[1] in ("torch", "optimum"):
        {"torch": export_torch, "optimum": export_optimum}[sys.argv[1]](*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--optimum", help="a Python that has optimum-onnx")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--gib", type=float, default=1.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    parser.add_argument("--only", choices=["exports", "runs"])
    arguments = parser.parse_args()
    sys.path.insert(0, HERE)
    from sidebyside import keep, measure, process, show

    os.makedirs(arguments.work, exist_ok=True)
    result = {}
    if arguments.only != "runs":
        result["exports"] = exports(arguments, process, measure, show)
    if arguments.only != "exports":
        result["runs"] = runs(arguments)
    keep(result, arguments.json)


if __name__ == "__main__":
    main()
