"""Runs one scanner over the corpus: `scanners.py TOOL CORPUS KEPT.jsonl MINUTES [COMMAND]`.

TOOL is picklescan, picklescan-strict, modelscan, fickling or modelaudit, run by the Python they are installed in, or
weighbridge, whose COMMAND is run. The command line of picklescan and fickling is called as a user calls it, in a fork of a
process that has it imported already, so that its start is not paid a thousand times; the time that counts is that of the fork.
modelscan and modelaudit are asked as libraries by a process that goes on, since they take seconds to begin. Each file has 60
seconds, a fork 8 GiB of addresses. Nothing reaches a network: the proxies lead nowhere. No file is loaded by anything but the scanners.

After so many MINUTES no further file is begun. They are taken one of each group after another, in an order that their names
give, so that a tool which has not seen all has seen some of everything.

A line of KEPT.jsonl is {"key", "path", "verdict", "exit", "seconds", "detail"}. It is kept: what a tool said of a file by
this name with these bytes is not asked again, since one of them takes seconds a file. What each tool says is mapped so:

- `dangerous`, `unknown`: it has a finding of its upper, or of its lower severities.
- `error`: no finding, and an exit code that says the scan failed; a crash and a timeout have their own names.
- `skipped`: it says that it looked at no file, with an exit code that is no failure.
- `clean`: neither finding nor failure.
"""

import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 60
MEMORY = 8 << 30


def offline():
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ[name] = "http://127.0.0.1:9"
    os.environ.update(
        HF_HUB_OFFLINE="1", PROMPTFOO_DISABLE_TELEMETRY="1", MODELAUDIT_NO_TELEMETRY="1", NO_ANALYTICS="1", DO_NOT_TRACK="1",
        TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", NO_COLOR="1", OMP_NUM_THREADS="1",
    )


class Tool:
    """A scanner: `arguments` of its command line for a file, and `read`, what it said."""

    folders = True

    def read(self, code, out, written):
        raise NotImplementedError


class Picklescan(Tool):
    def __init__(self, strict):
        self.strict = strict

    def load(self):
        from picklescan.cli import main

        return main

    def arguments(self, path, report):
        return ["picklescan", "-p", path, *(["--strict"] if self.strict else [])]

    def read(self, code, out, written):
        counts = {k: int(v) for k, v in re.findall(r"^(Scanned files|Suspicious globals|Dangerous globals): (\d+)", out, re.M)}
        if counts.get("Dangerous globals"):
            return "dangerous"
        # Without --strict, what is suspicious does not change the exit code.
        if counts.get("Suspicious globals"):
            return "unknown"
        if code == 0 and counts.get("Scanned files") == 0:
            return "skipped"
        return None


class Modelscan(Tool):
    def load(self):
        from modelscan.cli import main

        return main

    def arguments(self, path, report):
        return ["modelscan", "scan", "-p", path, "-r", "json", "-o", report]

    def read(self, code, out, written):
        if code == 3:
            return "skipped"
        if not written:
            return None
        summary = json.loads(written)["summary"]
        levels = summary["total_issues_by_severity"]
        if levels.get("CRITICAL") or levels.get("HIGH"):
            return "dangerous"
        if summary["total_issues"]:
            return "unknown"
        if code == 0 and not summary["scanned"]["total_scanned"]:
            return "skipped"
        return None


class Fickling(Tool):
    folders = False

    def load(self):
        from fickling.cli import main

        return main

    def arguments(self, path, report):
        return ["fickling", "--check-safety", "--json-output", report, path]

    def read(self, code, out, written):
        if code != 1:
            return None
        found = set(re.findall(r'"severity": "(\w+)"', written))
        if found & {"LIKELY_UNSAFE", "LIKELY_OVERTLY_MALICIOUS", "OVERTLY_MALICIOUS"}:
            return "dangerous"
        return "unknown" if found & {"POSSIBLY_UNSAFE", "SUSPICIOUS"} else None


class Modelaudit(Tool):
    def load(self):
        from modelaudit.cli import main

        return main

    def arguments(self, path, report):
        return ["modelaudit", "scan", "--format", "json", "--no-cache", "--output", report, path]

    def read(self, code, out, written):
        if not written:
            return None
        result = json.loads(written)
        levels = {issue["severity"] for issue in result["issues"]}
        if "critical" in levels:
            return "dangerous"
        if "warning" in levels:
            return "unknown"
        if code == 0 and not result.get("files_scanned", 1):
            return "skipped"
        return None


TOOLS = {
    "picklescan": lambda: Picklescan(False),
    "picklescan-strict": lambda: Picklescan(True),
    "modelscan": Modelscan,
    "fickling": Fickling,
    "modelaudit": Modelaudit,
}


def forked(main, arguments, folder):
    """Runs a command line in a fork: its exit code, or the name of the signal or bound that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(folder)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            sys.argv = arguments
            code = main()
            code = code if isinstance(code, int) else 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException as error:
            # A user of the command would see a traceback and an exit code of 1: that is no finding.
            os.write(2, f"CRASH {type(error).__name__}: {error}\n".encode(errors="replace"))
            code = 70
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code & 0xFF)
    end = time.monotonic() + SECONDS
    pause = 0.002
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "timeout"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    if os.WIFSIGNALED(status):
        return "crash"
    code = os.WEXITSTATUS(status)
    return "crash" if code == 70 else code


def library(name):
    """How a scanner is asked as a library: a function from a path to exit code and report, of a process that goes on.

    modelscan and modelaudit take seconds for what they import and build before they look at a file; as their commands, a
    process each, they would take hours. What they say of a file is the same."""
    if name == "modelscan":
        from modelscan.modelscan import ModelScan

        def ask(path):
            scan = ModelScan()
            result = scan.scan(path)
            if not scan.scanned:
                return 3, result
            return (2 if scan.errors else 1 if scan.issues.all_issues else 0), result

        return ask
    from modelaudit.core import scan_model_directory_or_file
    from modelaudit.core_results import determine_exit_code

    def ask(path):
        result = scan_model_directory_or_file(path, timeout=SECONDS, cache_enabled=False)
        return determine_exit_code(result), json.loads(result.model_dump_json())

    return ask


class Late(BaseException):
    """A file took its time."""


def asked(tool, ask, path):
    """As `look`, in this process. The bound on time is a signal, which a call into a library without Python delays."""

    def late(*_):
        raise Late

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    started = time.monotonic()
    verdict, code, detail = None, None, ""
    try:
        code, report = ask(str(path))
        verdict = tool.read(code, "", json.dumps(report, default=str))
    except Late:
        verdict = "timeout"
    except BaseException as error:
        verdict, detail = "crash", f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.alarm(0)
    if verdict is None:
        verdict = "clean" if code == 0 else "error"
    return {"verdict": verdict, "exit": code, "seconds": time.monotonic() - started, "detail": detail}


RANK = ["skipped", "clean", "error", "crash", "timeout", "unknown", "dangerous"]


def look(tool, main, path):
    """What a tool makes of a file; of a folder, where it takes none, the worst of its files."""
    if path.is_dir() and not tool.folders:
        found = [look(tool, main, p) for p in sorted(path.rglob("*")) if p.is_file()]
        worst = max(found, key=lambda f: RANK.index(f["verdict"]))
        return {**worst, "seconds": sum(f["seconds"] for f in found)}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        report = folder / "report.json"
        started = time.monotonic()
        code = forked(main, tool.arguments(str(path), str(report)), folder)
        seconds = time.monotonic() - started
        out = (folder / "log").read_text(errors="replace") if (folder / "log").exists() else ""
        written = report.read_text(errors="replace") if report.exists() else ""
    try:
        verdict = tool.read(code, out, written)
    except (ValueError, KeyError) as error:
        verdict, out = None, f"{error}\n{out}"
    if verdict is None:
        verdict = code if isinstance(code, str) else "clean" if code == 0 else "error"
    return {"verdict": verdict, "exit": code, "seconds": seconds, "detail": out[-300:] if verdict in ("error", "crash") else ""}


def weighbridge(command, path):
    started = time.monotonic()
    try:
        done = subprocess.run([command, "scan", "--json", str(path)], capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"verdict": "timeout", "exit": None, "seconds": SECONDS, "detail": ""}
    seconds = time.monotonic() - started
    verdict = "crash" if done.returncode < 0 else "error"
    if done.returncode in (0, 1, 2):
        verdict = json.loads(done.stdout)["verdict"]
    return {"verdict": verdict, "exit": done.returncode, "seconds": seconds, "detail": done.stderr.decode()[-300:]}


def key_of(version, path, file):
    """What an answer stands for: the tool's version, the file's name, and all of its bytes."""
    digest = hashlib.sha256(f"{version}\0{Path(path).name}".encode())
    for part in sorted(file.rglob("*")) if file.is_dir() else [file]:
        if part.is_file():
            content = part.read_bytes()
            digest.update(f"\0{part.relative_to(file)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def spread(files):
    """One of each group after another; within a group by the digests of the names."""
    groups = {}
    for file in sorted(files, key=lambda f: hashlib.sha256(f["path"].encode()).digest()):
        groups.setdefault(file["group"], []).append(file["path"])
    ranked = [(rank, group, path) for group, paths in groups.items() for rank, path in enumerate(paths)]
    return [path for _, _, path in sorted(ranked)]


def main(name, corpus, kept, minutes, command=None):
    offline()
    # Each run has a folder of its own, so no path may depend on this one.
    corpus, kept = Path(corpus).resolve(), Path(kept).resolve()
    files = spread(json.loads((corpus / "expected.json").read_text())["files"])
    if name == "weighbridge":
        # Its answers are quick, and change with the code.
        version = f"{time.time()}"
        run = lambda path: weighbridge(command, path)  # noqa: E731
    else:
        from importlib.metadata import version as version_of

        version = f"{name} {version_of(name.removesuffix('-strict'))} {SECONDS}"
        tool = TOOLS[name]()
        if name in ("modelscan", "modelaudit"):
            import logging

            logging.disable(logging.CRITICAL)
            ask = library(name)
            run = lambda path: asked(tool, ask, path)  # noqa: E731
        else:
            entry = tool.load()
            run = lambda path: look(tool, entry, path)  # noqa: E731
    answers = {}
    # A run that was stopped leaves its shares beside the whole.
    for file in [kept, *kept.parent.glob(f"{kept.name}.*")]:
        for line in file.read_text().splitlines() if file.exists() else []:
            answer = json.loads(line)
            answers[answer["key"]] = answer
    keys = {path: key_of(version, path, corpus / path) for path in files}
    left = [path for path in files if keys[path] not in answers]
    started = time.monotonic()
    # A fork a file, from a process without threads: so the shares are processes, too.
    jobs = os.cpu_count() or 1
    parts = [Path(f"{kept}.{job}") for job in range(jobs)]
    children = []
    for job in range(jobs):
        pid = os.fork()
        if pid == 0:
            try:
                with open(parts[job], "a") as lines:
                    for path in left[job::jobs]:
                        if time.monotonic() - started > 60 * float(minutes):
                            break
                        lines.write(json.dumps({"key": keys[path], "path": path, **run(corpus / path)}) + "\n")
                        lines.flush()
                os._exit(0)
            except BaseException as error:
                os.write(2, f"{name}: {type(error).__name__}: {error}\n".encode())
                os._exit(1)
        children.append(pid)
    if any([os.waitpid(pid, 0)[1] != 0 for pid in children]):
        raise SystemExit(f"{name}: a share failed")
    for part in parts:
        for line in part.read_text().splitlines():
            answer = json.loads(line)
            answers[answer["key"]] = answer
    said = [path for path in files if keys[path] in answers]
    with open(kept, "w") as lines:
        for path in said:
            lines.write(json.dumps({**answers[keys[path]], "path": path}) + "\n")
    for part in parts:
        part.unlink()
    seconds = time.monotonic() - started
    now = len(said) + len(left) - len(files)
    print(f"{name}: {now} files asked in {seconds:.0f} s by {jobs} processes, {len(said)} of {len(files)} in all", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
