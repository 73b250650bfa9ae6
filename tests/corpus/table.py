"""Counts what the scanners said of the corpus: `table.py CORPUS KEPT OUT.json`, the table on standard output.

KEPT is the folder of scanners.py's answers. Of a hostile file `dangerous` and `unknown` are detections. A failure (an
error, a crash, a timeout) is counted by itself: a gate that looks at the exit code stops there, but nothing was found. Of
a benign file `dangerous` is a false alarm, and `unknown` a question that somebody has to answer.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ["weighbridge", "picklescan", "picklescan-strict", "modelscan", "fickling", "modelaudit"]
FAILED = ("error", "crash", "timeout")


def version(tool):
    if tool == "weighbridge":
        return re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    name = tool.removesuffix("-strict")
    return re.search(rf"^{name}==(.*)$", (ROOT / "xtask" / "scanners.txt").read_text(), re.M)[1]


def row(cells):
    return "| " + " | ".join(str(c) for c in cells) + " |"


def table(head, rows):
    return "\n".join([row(head), row("---" for _ in head), *map(row, rows)])


def counted(answers):
    count = Counter(a["verdict"] for a in answers)
    return [count["dangerous"], count["unknown"], sum(count[f] for f in FAILED), count["skipped"], count["clean"]]


def main(corpus, kept, out):
    files = json.loads((Path(corpus) / "expected.json").read_text())["files"]
    hostile = [f for f in files if f["half"] == "hostile"]
    benign = [f for f in files if f["half"] == "benign"]
    said = {}
    for tool in TOOLS:
        path = Path(kept) / f"{tool}.jsonl"
        if not path.exists():
            continue
        said[tool] = {a["path"]: a for a in map(json.loads, path.read_text().splitlines())}
        missing = [f["path"] for f in files if f["path"] not in said[tool]]
        if missing:
            raise SystemExit(f"{tool} said nothing of {len(missing)} files, {missing[0]} among them")
    names = {tool: f"{tool} {version(tool)}" for tool in said}
    result = {"hostile": len(hostile), "benign": len(benign), "tools": {}}
    first, second = [], []
    for tool, answers in said.items():
        of = lambda part: [answers[f["path"]] for f in part]  # noqa: E731
        counts, alarms = counted(of(hostile)), counted(of(benign))
        detected = counts[0] + counts[1]
        seconds = sum(answers[f["path"]]["seconds"] for f in files)
        first.append([names[tool], f"{detected} ({100 * detected / len(hostile):.1f} %)", *counts])
        second.append([names[tool], *alarms, f"{seconds:.0f}"])
        result["tools"][tool] = {
            "version": version(tool), "seconds": round(seconds, 1),
            "hostile": dict(zip(["dangerous", "unknown", "failed", "skipped", "clean"], counts)),
            "benign": dict(zip(["dangerous", "unknown", "failed", "skipped", "clean"], alarms)),
            "missed": [f["path"] for f in hostile if answers[f["path"]]["verdict"] not in ("dangerous", "unknown")],
            "alarms": [f["path"] for f in benign if answers[f["path"]]["verdict"] == "dangerous"],
            "questions": [f["path"] for f in benign if answers[f["path"]]["verdict"] == "unknown"],
        }
    print(f"{len(hostile)} hostile files:\n")
    print(table(["scanner", "detected", "dangerous", "unknown", "failed", "skipped", "clean"], first))
    print(f"\n{len(benign)} benign files, and the seconds that all files took:\n")
    print(table(["scanner", "dangerous", "unknown", "failed", "skipped", "clean", "seconds"], second))

    def by_group(part, verdicts):
        groups = {}
        for file in part:
            groups.setdefault(file["group"], []).append(file["path"])
        return [
            [group, len(paths), *(sum(said[t][p]["verdict"] in verdicts for p in paths) for t in said)]
            for group, paths in sorted(groups.items())
        ]

    print("\nHostile files detected, by group:\n")
    print(table(["group", "files", *said], by_group(hostile, ("dangerous", "unknown"))))
    print("\nBenign files called dangerous or unknown, by group:\n")
    print(table(["group", "files", *said], by_group(benign, ("dangerous", "unknown"))))
    others = [t for t in said if t != "weighbridge"]
    unseen = [f for f in hostile if all(f["path"] in result["tools"][t]["missed"] for t in others)]
    result["missed by every other"] = [f["path"] for f in unseen]
    result["missed by all"] = [f["path"] for f in unseen if all(f["path"] in result["tools"][t]["missed"] for t in said)]
    print(f"\nDetected by no other scanner: {len(unseen)}; by none at all: {len(result['missed by all'])}")
    Path(out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
