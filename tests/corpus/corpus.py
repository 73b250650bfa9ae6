"""The folder that a corpus is written into, and the list of what must hold for each file of it.

A corpus has two halves. Each hostile file stands for a line of what is known about hostile files: `expect` is
`dangerous` where loading it in the usual way runs code or leaves the model's folder, else `not-clean`. Each benign file
is what a real tool writes: `clean`, or `not-dangerous` with `why` it may stay unknown. Files in `bounded` are judged by
memory and time alone: they are odd, and whether they are called clean does not matter.
"""

import json
from pathlib import Path


def write(target, content):
    """Writes a file, or a folder if `content` is a dict of files."""
    if isinstance(content, dict):
        for name, data in content.items():
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    else:
        target.write_bytes(content)


class Corpus:
    def __init__(self, root):
        self.root = Path(root)
        self.files = []
        self.paths = set()

    def _place(self, half, group, name):
        path = f"{half}/{group}/{name}"
        if path in self.paths:
            raise ValueError(f"{path} is there twice")
        self.paths.add(path)
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return path, target

    def hostile(self, group, name, content, about, expect="dangerous", callable=None):
        """A hostile file, or a folder if `content` is a dict of files; `callable` must be named by a finding."""
        path, target = self._place("hostile", group, name)
        write(target, content)
        self.files.append(
            {"path": path, "group": group, "half": "hostile", "expect": expect, "about": about, "callable": callable}
        )
        return target

    def bounded(self, group, name, content, about):
        path, target = self._place("bounded", group, name)
        write(target, content)
        self.files.append({"path": path, "group": group, "half": "bounded", "expect": "bounded", "about": about})

    def benign_path(self, group, name, why=None):
        """Where a tool is to write a benign file or folder; `why` says why the answer may be unknown."""
        path, target = self._place("benign", group, name)
        expect = "clean" if why is None else "not-dangerous"
        self.files.append({"path": path, "group": group, "half": "benign", "expect": expect, "why": why})
        return target

    def benign(self, group, name, content, why=None):
        write(self.benign_path(group, name, why), content)

    def finish(self):
        for file in self.files:
            if not (self.root / file["path"]).exists():
                raise ValueError(f"{file['path']} was not written")
        text = json.dumps({"files": self.files}, indent=1)
        (self.root / "expected.json").write_text(text + "\n")
