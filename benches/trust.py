"""What trust costs: scans, hashes, manifests, signatures and encryption by weighbridge beside `cp` and other tools.

python trust.py --work DIR --bin WEIGHBRIDGE [--age FOLDER] [--signing PYTHON] [--scanners PYTHON]
                [--runs N] [--gib G] [--json OUT] [--only TEXT]

It measures as sidebyside.py does: in turns, the input in the page cache, nothing synced. Every tool is a whole process.
The slow scanners run once, and are shown apart.
"""

import argparse
import os
import subprocess
import sys

import numpy

HERE = os.path.dirname(os.path.abspath(__file__))


def keys(arguments):
    """A key for age, and one for signatures; made once."""
    identity, recipients = os.path.join(arguments.work, "age.key"), os.path.join(arguments.work, "age.pub")
    if not os.path.exists(identity):
        made = subprocess.run([arguments.bin, "encrypt", "--generate-identity", identity],
                              check=True, capture_output=True, text=True).stdout
        public = next(word for word in made.split() if word.startswith("age1"))
        with open(recipients, "w", encoding="utf-8") as file:
            file.write(public + "\n")
    private = os.path.join(arguments.work, "sign.pem")
    if not os.path.exists(private):
        subprocess.run([arguments.bin, "sign", "--generate-key", private],
                       check=True, stdout=subprocess.DEVNULL)
    return identity, recipients, private


def cases(arguments, files, process):
    """Each case's ways, and the slow ways that run once."""
    to, bin_ = files.to, arguments.bin
    identity, recipients, private = keys(arguments)
    model, recorded = (os.path.join(arguments.work, name) for name in ("model", "recorded"))
    for folder in (model, recorded):
        os.makedirs(folder, exist_ok=True)
        if not os.path.exists(os.path.join(folder, "model.safetensors")):
            os.link(files.st, os.path.join(folder, "model.safetensors"))
    if not os.path.exists(os.path.join(recorded, "weighbridge.json")):
        subprocess.run([bin_, "hash", recorded, "--write"], check=True, stdout=subprocess.DEVNULL)
    noise, sealed = (os.path.join(arguments.work, name) for name in ("noise.bin", "big.age"))
    if not os.path.exists(noise):
        random = numpy.random.default_rng(0)
        with open(noise, "wb") as file:
            for _ in range(1024):
                file.write(random.bytes(1 << 20))
    if not os.path.exists(sealed):
        subprocess.run([bin_, "encrypt", files.st, sealed, "-R", recipients, "--quiet"],
                       check=True, stdout=subprocess.DEVNULL)
    cp = lambda path: process("cp", path, to("copy"))
    own = lambda *words: process(bin_, *words)
    quick = ["--quiet", "--no-fsync"]
    slow = {}
    scan = {"cp": cp(files.bin), "weighbridge": own("scan", files.bin, "--quiet")}
    if arguments.scanners:
        at = os.path.join(os.path.dirname(arguments.scanners), "picklescan")
        scan["picklescan"] = process(at, "--path", files.bin)
        beside = os.path.dirname(arguments.scanners)
        slow["scan a torch checkpoint"] = {
            "modelscan": process(os.path.join(beside, "modelscan"), "-p", files.bin),
            "modelaudit": process(os.path.join(beside, "modelaudit"), "scan", "--no-cache", files.bin),
        }
    made = {
        "scan a torch checkpoint": scan,
        "scan a safetensors file": {"cp": cp(files.st), "weighbridge": own("scan", files.st, "--quiet")},
        "scan 1 GiB of noise, all of it searched": {"cp": cp(noise), "weighbridge": own("scan", noise, "--quiet")},
        "hash a safetensors file": {
            "cp": cp(files.st),
            "weighbridge": own("hash", files.st),
            "weighbridge, logical alone": own("hash", files.st, "--algorithm", "logical"),
            "sha256sum": process("sha256sum", files.st),
        },
        "verify a folder by its manifest": {
            "cp": cp(files.st),
            "weighbridge": own("verify", recorded),
            "weighbridge --sha256": own("verify", recorded, "--sha256"),
            "sha256sum": process("sha256sum", files.st),
        },
        "convert .bin to safetensors": {
            "cp": cp(files.bin),
            "weighbridge": own("convert", files.bin, to("o.safetensors"), *quick),
            "weighbridge --manifest": own("convert", files.bin, to("p.safetensors"), "--manifest", *quick),
        },
        "encrypt a file": {
            "cp": cp(files.st),
            "weighbridge": own("encrypt", files.st, to("o.age"), "-R", recipients, *quick),
        },
        "decrypt a file": {
            "cp": cp(files.st),
            "weighbridge": own("decrypt", sealed, to("o.safetensors"), "-i", identity, *quick),
        },
        "sign a folder": {
            "cp": cp(files.st),
            "weighbridge": own("sign", model, "--key", private, "--signature", to("o.sig"), "--no-cache", "--quiet"),
            "sha256sum": process("sha256sum", files.st),
        },
    }
    if arguments.age:
        age = os.path.join(arguments.age, "age")
        made["encrypt a file"]["age"] = process(age, "-R", recipients, "-o", to("a.age"), files.st)
        made["decrypt a file"]["age"] = process(age, "-d", "-i", identity, "-o", to("a.st"), sealed)
    if arguments.signing:
        made["sign a folder"]["model-signing"] = process(
            arguments.signing, "-m", "model_signing", "sign", "key", model,
            "--private_key", private, "--signature", to("m.sig"),
        )
    return made, slow


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--age", help="the folder with the tool age")
    parser.add_argument("--signing", help="a Python that has model-signing")
    parser.add_argument("--scanners", help="the Python of the other scanners")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--gib", type=float, default=1.5)
    parser.add_argument("--json")
    parser.add_argument("--only", default="", help="the cases whose names have this text")
    arguments = parser.parse_args()
    sys.path.insert(0, HERE)
    from sidebyside import Files, keep, measure, process, show

    os.makedirs(arguments.work, exist_ok=True)
    files = Files(arguments.work, arguments.gib)
    in_memory = os.path.realpath(arguments.work).startswith("/dev/shm")
    made, slow = cases(arguments, files, process)
    result = {}
    for case, ways in made.items():
        if arguments.only not in case:
            continue
        result[case] = show(case, *measure(ways, files, arguments.runs, in_memory, 4))
        for name, way in slow.get(case, {}).items():
            files.clear()
            seconds, peak = way()
            ratio = seconds / result[case]["median_s"]["weighbridge"]
            print(f"  {name:32s} {seconds * 1e3:9.1f} ms (once)  {ratio:.1f}x weighbridge  {peak:.0f} MiB", flush=True)
            result[case][name] = {"seconds": seconds, "peak_rss_mib": peak}
    files.clear()
    keep(result, arguments.json)


if __name__ == "__main__":
    main()
