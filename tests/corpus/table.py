"""Counts what the scanners said of the corpus: `table.py CORPUS KEPT OUT.json`, the table on standard output.

KEPT is the folder of scanners.py's answers. Of a hostile file `dangerous` and `unknown` are detections. A failure (an
error, a crash, a timeout) is counted by itself: a gate that looks at the exit code stops there, but nothing was found. Of
a benign file `dangerous` is a false alarm, and `unknown` a question that somebody has to answer. A tool that was stopped before it had seen all files is counted over those that it
saw, which `asked` tells.
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
        # A run that was stopped leaves its shares beside the whole.
        parts = sorted(Path(kept).glob(f"{tool}.jsonl*"))
        answers = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
        if answers:
            said[tool] = {a["path"]: a for a in answers}
    names = {tool: f"{tool} {version(tool)}" for tool in said}
    result = {"hostile": len(hostile), "benign": len(benign), "tools": {}}
    first, second = [], []
    for tool, answers in said.items():
        asked = [[f for f in part if f["path"] in answers] for part in (hostile, benign)]
        counts, alarms = (counted(answers[f["path"]] for f in part) for part in asked)
        detected = counts[0] + counts[1]
        share = 100 * detected / max(1, len(asked[0]))
        seconds = sum(a["seconds"] for a in answers.values()) / max(1, len(answers))
        first.append([names[tool], len(asked[0]), f"{detected} ({share:.1f} %)", *counts])
        second.append([names[tool], len(asked[1]), *alarms, f"{seconds:.4f}"])
        result["tools"][tool] = {
            "version": version(tool), "asked": [len(part) for part in asked], "seconds a file": round(seconds, 3),
            "hostile": dict(zip(["dangerous", "unknown", "failed", "skipped", "clean"], counts)),
            "benign": dict(zip(["dangerous", "unknown", "failed", "skipped", "clean"], alarms)),
            "missed": [f["path"] for f in asked[0] if answers[f["path"]]["verdict"] not in ("dangerous", "unknown")],
            "alarms": [f["path"] for f in asked[1] if answers[f["path"]]["verdict"] == "dangerous"],
            "questions": [f["path"] for f in asked[1] if answers[f["path"]]["verdict"] == "unknown"],
        }
    print(f"{len(hostile)} hostile files:\n")
    print(table(["scanner", "asked", "detected", "dangerous", "unknown", "failed", "skipped", "clean"], first))
    print(f"\n{len(benign)} benign files:\n")
    print(table(["scanner", "asked", "dangerous", "unknown", "failed", "skipped", "clean", "seconds a file"], second))

    def cell(answers, paths, verdicts):
        asked = [answers[p]["verdict"] in verdicts for p in paths if p in answers]
        return sum(asked) if len(asked) == len(paths) else f"{sum(asked)} of {len(asked)}" if asked else "-"

    def by_group(part, verdicts):
        groups = {}
        for file in part:
            groups.setdefault(file["group"], []).append(file["path"])
        return [
            [group, len(paths), *(cell(said[t], paths, verdicts) for t in said)]
            for group, paths in sorted(groups.items())
        ]

    print("\nHostile files detected, by group:\n")
    print(table(["group", "files", *said], by_group(hostile, ("dangerous", "unknown"))))
    print("\nBenign files called dangerous or unknown, by group:\n")
    print(table(["group", "files", *said], by_group(benign, ("dangerous", "unknown"))))
    detected = {t: {p for p, a in said[t].items() if a["verdict"] in ("dangerous", "unknown")} for t in said}
    whole = [t for t in said if all(f["path"] in said[t] for f in hostile)]
    others = [t for t in whole if t != "weighbridge"]
    unseen = [f["path"] for f in hostile if all(f["path"] not in detected[t] for t in others)]
    result["missed by every other that was asked all"] = unseen
    result["missed by all"] = [p for p in unseen if all(p not in detected[t] for t in said)]
    print(f"\nDetected by none of {', '.join(others)}: {len(unseen)}; by none at all: {len(result['missed by all'])}")
    Path(out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
