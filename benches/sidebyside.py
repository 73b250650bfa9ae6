"""Weighbridge beside `cp` and beside what Python users do instead, over the same files, in one run.

python sidebyside.py --work DIR [--bin WEIGHBRIDGE] [--library LIBRARY] [--runs N] [--gib G] [--json OUT] [--only TEXT]

How it measures:

- The tools of a case take turns (A B C, A B C, ...), so that a machine that slows down slows all of them. A first
  round is not counted. What is printed is the median, the least, and the ratio to weighbridge: ratios are what counts.
- Python's ways run inside this process, imports done; `weighbridge` and `cp` are whole processes, start-up included.
- The library is held against Python's in the same way: `benches/library.rs` is one warm process, with the same tensors
  in its memory, that takes the time of each call.
- The input is in the page cache, nothing is synced to disk, and what a run wrote is deleted before the next. Use a
  folder in memory (/dev/shm): on a disk, writing back what an earlier run left disturbs a later one.
- Before each run, `cp`'s included, some GiB of memory are filled and freed. A virtual machine that has to ask its host
  for fresh pages would else be slow for whoever runs first.
- Peak memory is that of the child process as the kernel counts it, mapped file pages included.
"""

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

HIDDEN = 2048
VOCABULARY = 32000
MANY = 20000


class Files:
    """The inputs, made once in the work folder: a large transformer's weights, and very many small tensors."""

    def __init__(self, work, gib):
        at = lambda name: os.path.join(work, name)
        self.bin, self.st = at("big.bin"), at("big.safetensors")
        self.many_bin, self.many_st = at("many.bin"), at("many.safetensors")
        self.out = at("out")
        os.makedirs(self.out, exist_ok=True)
        if not all(map(os.path.exists, (self.bin, self.st))):
            self.keep(self.bin, self.st, weights(gib))
        if not all(map(os.path.exists, (self.many_bin, self.many_st))):
            block = lambda i: f"block.{i // 10}.layer.{i % 10}.weight"
            self.keep(self.many_bin, self.many_st, {block(i): torch.full((16, 16), float(i)) for i in range(MANY)})

    @staticmethod
    def keep(bin_, st, tensors):
        torch.save(tensors, bin_)
        save_file(tensors, st)

    def to(self, name):
        return os.path.join(self.out, name)

    def clear(self):
        for name in os.listdir(self.out):
            path = self.to(name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def weights(gib):
    """f32 tensors in the shapes of a decoder, close to `gib` GiB of them."""
    torch.manual_seed(0)
    per_layer = {"q": 1, "k": 1, "v": 1, "o": 1, "up": 4, "down": 4}
    rows = int(gib * 2**30) // (4 * HIDDEN) - VOCABULARY
    layers = max(1, rows // (sum(per_layer.values()) * HIDDEN))
    tensors = {"embed.weight": torch.randn(VOCABULARY, HIDDEN)}
    for layer in range(layers):
        for name, times in per_layer.items():
            tensors[f"layers.{layer}.{name}.weight"] = torch.randn(times * HIDDEN, HIDDEN)
        tensors[f"layers.{layer}.norm.weight"] = torch.ones(HIDDEN)
    return tensors


# --- The ways to do a thing ------------------------------------------------------------------------


def process(*command):
    """A way that is a program: its seconds, and its peak memory in MiB."""
    program = shutil.which(command[0])
    if program is None:
        raise SystemExit(f"there is no program {command[0]}")

    def run():
        # What this process holds must not count as the child's: a small helper starts and measures it.
        read, write = os.pipe()
        helper = [sys.executable, "-S", "-E", "-c", LAUNCH, str(write), program, *command[1:]]
        quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        os.set_inheritable(write, True)
        pid = os.posix_spawn(sys.executable, helper, os.environ, file_actions=quiet)
        os.close(write)
        with os.fdopen(read) as pipe:
            answer = pipe.read().split()
        os.waitpid(pid, 0)
        if len(answer) != 3 or answer[2] != "0":
            raise SystemExit(f"failed: {' '.join(command)}")
        return float(answer[0]), int(answer[1]) / 1024

    return run


LAUNCH = """
import os, sys, time
note, program = int(sys.argv[1]), sys.argv[2:]
os.set_inheritable(note, False)
began = time.perf_counter()
child = os.posix_spawn(program[0], program, os.environ)
_, status, usage = os.wait4(child, 0)
took = time.perf_counter() - began
os.write(note, f"{took} {usage.ru_maxrss} {os.waitstatus_to_exitcode(status)}".encode())
"""


class Library:
    """The warm process of `benches/library.rs`; each of its ways is a command to it."""

    def __init__(self, program, model):
        self.process = subprocess.Popen([program, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise SystemExit(f"{program} does not start")

    def way(self, *words):
        def run():
            self.process.stdin.write(" ".join(words) + "\n")
            self.process.stdin.flush()
            return float(self.process.stdout.readline()), None

        return {"weighbridge": run}


def touched(tensors):
    """Reads every byte of tensors, as something that is loaded to be used is read."""
    return sum(tensor.view(torch.int32).sum() for tensor in tensors.values()), tensors


def load_shards(folder):
    """A sharded set as transformers and others load it with safetensors."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            tensors.update(load_file(os.path.join(folder, name)))
    return tensors


def inside(function):
    """A way that is a call inside this warm process: its seconds; its memory is not told."""

    def run():
        gc.collect()
        began = time.perf_counter()
        kept = function()
        took = time.perf_counter() - began
        del kept
        return took, None

    return run


def torch_load(path, **options):
    return torch.load(path, map_location="cpu", weights_only=True, **options)


def cast(files):
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(files.st).items()}
    save_file(tensors, files.to("python.safetensors"))


def listed(path):
    tensors = torch_load(path, mmap=True)
    return [(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()]


def listed_safe(path):
    with safe_open(path, framework="pt") as file:
        return [(name, file.get_slice(name).get_shape()) for name in file.keys()]


def cases(files, weighbridge, library):
    """The table: each case's ways, by name."""
    return {**conversions(files, weighbridge), **library_cases(files, weighbridge, library)}


def library_cases(files, weighbridge, program):
    """What a program does with a model in its memory: saving it, loading it."""
    if not program:
        return {}
    shards = os.path.join(os.path.dirname(files.st), "shards")
    if not os.path.isdir(shards):
        command = [weighbridge, "convert", files.st, shards, "--to", "safetensors", "--max-shard-size", "400MB"]
        subprocess.run([*command, "--no-fsync", "--quiet"], check=True)
    library = Library(program, files.st)
    tensors = load_file(files.st)
    to = files.to
    # load_file maps: without a copy, saving would time the reading of the file too.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    return {
        "save from memory, safetensors": {
            "cp": process("cp", files.st, to("copy.safetensors")),
            "save_file": inside(lambda: save_file(tensors, to("python.safetensors"))),
            **library.way("save", to("own"), "safetensors"),
        },
        "save from memory, torch": {
            "cp": process("cp", files.bin, to("copy.bin")),
            "torch.save": inside(lambda: torch.save(tensors, to("python.bin"))),
            **library.way("save", to("own"), "torch"),
        },
        "load shards, every byte read": {
            "load_file+sum": inside(lambda: touched(load_shards(shards))),
            **library.way("touch", shards),
        },
        "load shards into memory": {
            "load_file+clone": inside(lambda: {n: t.clone() for n, t in load_shards(shards).items()}),
            **library.way("load", shards),
        },
        "open shards": {
            "load_file": inside(lambda: load_shards(shards)),
            **library.way("open", shards),
        },
    }


def conversions(files, weighbridge):
    to = files.to
    own = lambda *arguments: {"weighbridge": process(weighbridge, *arguments)} if weighbridge else {}
    convert = lambda source, name, *more: own("convert", source, to(name), *more, "--no-fsync", "--quiet")
    return {
        "bin->safetensors": {
            "cp": process("cp", files.bin, to("copy.bin")),
            "torch.load+save_file": inside(lambda: save_file(torch_load(files.bin), to("python.safetensors"))),
            "torch.load(mmap)+save_file": inside(
                lambda: save_file(torch_load(files.bin, mmap=True), to("python.safetensors"))
            ),
            **convert(files.bin, "own.safetensors"),
        },
        "safetensors f32->bf16": {
            "cp": process("cp", files.st, to("copy.safetensors")),
            "load_file+cast+save_file": inside(lambda: cast(files)),
            **convert(files.st, "own.safetensors", "--dtype", "bf16"),
        },
        "safetensors->bin": {
            "cp": process("cp", files.st, to("copy.safetensors")),
            "load_file+torch.save": inside(lambda: torch.save(load_file(files.st), to("python.bin"))),
            **convert(files.st, "own.bin"),
        },
        "list 20k tensors of a .bin": {
            "torch.load(mmap)": inside(lambda: listed(files.many_bin)),
            **own("inspect", files.many_bin, "--json"),
        },
        "list 20k tensors of a .safetensors": {
            "safe_open": inside(lambda: listed_safe(files.many_st)),
            **own("inspect", files.many_st, "--json"),
        },
    }


# --- Measuring -------------------------------------------------------------------------------------


def take_pages(gib):
    """Fills and frees memory, so that the pages that the next run wants are at hand."""
    numpy.empty(int(gib * 2**27)).fill(1.0)


def measure(ways, files, runs, in_memory, warm):
    times, peaks = {name: [] for name in ways}, {}
    for turn in range(runs + 1):
        for name, way in ways.items():
            files.clear()
            if not in_memory:
                os.sync()
            take_pages(warm)
            seconds, peak = way()
            if turn > 0:
                times[name].append(seconds)
            if peak is not None:
                peaks[name] = max(peaks.get(name, 0), peak)
    return times, peaks


def show(case, times, peaks):
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    own = medians.get("weighbridge")
    print(f"\n{case}")
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        parts = [f"  {name:32s} {median * 1e3:9.1f} ms (min {min(times[name]) * 1e3:.1f})"]
        if own:
            parts.append(f"{median / own:.2f}x weighbridge")
        if name in peaks:
            parts.append(f"{peaks[name]:.0f} MiB")
        print("  ".join(parts), flush=True)
    return {"median_s": medians, "min_s": {n: min(t) for n, t in times.items()}, "peak_rss_mib": peaks}


def keep(result, path):
    """Writes the figures as JSON, where a path is given."""
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True)
    parser.add_argument("--bin")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--gib", type=float, default=1.5)
    parser.add_argument("--warm", type=float, default=4, help="GiB to fill and free before each run")
    parser.add_argument("--json")
    parser.add_argument("--library", help="the program of benches/library.rs")
    parser.add_argument("--only", default="", help="the cases whose names have this text")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    os.makedirs(arguments.work, exist_ok=True)
    files = Files(arguments.work, arguments.gib)
    in_memory = os.path.realpath(arguments.work).startswith("/dev/shm")
    result = {}
    for case, ways in cases(files, arguments.bin, arguments.library).items():
        if arguments.only not in case:
            continue
        times, peaks = measure(ways, files, arguments.runs, in_memory, arguments.warm)
        result[case] = show(case, times, peaks)
    files.clear()
    keep(result, arguments.json)


if __name__ == "__main__":
    main()
