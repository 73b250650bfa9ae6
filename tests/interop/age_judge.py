"""The tool age as the judge of encrypted files.

`age_judge.py batch`: reads tasks, a JSON object a line, and prints for each a line with `faults`. A task has `age`, the
path of the tool; `do`, which is `decrypt` or `encrypt`; `input` and `output`; `identity` or `recipient`, or a
`passphrase`, which is typed at a terminal as age wants it; `armor`. With `folder`, what is decrypted goes through
`tar x` into `output`.
"""

import json
import os
import pty
import select
import subprocess
import sys
import time


def at_terminal(argv, answers):
    """Runs a program at a terminal of its own and types an answer to each prompt; returns its exit code and output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(argv[0], argv)
    said, left, until = b"", list(answers), time.monotonic() + 60
    while time.monotonic() < until:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if not ready:
            continue
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        said += part
        # Each prompt ends in a colon and a space, and comes once.
        while left and said.count(b": ") > len(answers) - len(left):
            time.sleep(0.05)
            os.write(terminal, left.pop(0).encode() + b"\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), said.decode(errors="replace")


def run(task):
    age, source, output = task["age"], task["input"], task["output"]
    words = task.get("passphrase")
    if task["do"] == "encrypt":
        argv = [age] + (["-p"] if words else ["-r", task["recipient"]])
        argv += (["-a"] if task.get("armor") else []) + ["-o", output, source]
        # The second answer repeats the first.
        code, said = at_terminal(argv, [words, words] if words else [])
        return [] if code == 0 else [f"{argv}: {code}: {said}"]
    argv = [age, "-d"] + ([] if words else ["-i", task["identity"]])
    if task.get("folder"):
        os.makedirs(output)
        plain = subprocess.run(argv + [source], capture_output=True)
        if plain.returncode != 0:
            return [plain.stderr.decode(errors="replace")]
        tar = subprocess.run(["tar", "x", "-C", output], input=plain.stdout, capture_output=True)
        return [tar.stderr.decode()] if tar.returncode != 0 or tar.stderr else []
    code, said = at_terminal(argv + ["-o", output, source], [words] if words else [])
    return [] if code == 0 else [f"{argv}: {code}: {said}"]


def main():
    for line in sys.stdin:
        print(json.dumps({"faults": run(json.loads(line))}), flush=True)


if __name__ == "__main__":
    main()
