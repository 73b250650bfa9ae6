"""Files that the tool age made, with the keys that open them: python make.py FOLDER_OF_AGE

The keys are for tests alone. Needs age, age-keygen and ssh-keygen. Every run makes other keys and other files.
"""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "interop"))
from age_judge import at_terminal  # noqa: E402

PASSPHRASE = "golden passphrase"


def main():
    os.chdir(HERE)
    age, keygen = (os.path.join(sys.argv[1], name) for name in ("age", "age-keygen"))
    for name in os.listdir("."):
        if name != "make.py":
            os.remove(name)

    # More than a chunk of 64 KiB, and what shows where it is from.
    with open("plain", "wb") as file:
        file.write(b"".join(i.to_bytes(4, "big") for i in range(16_500)))
    with open("short", "w") as file:
        file.write("a text of one line\n")

    subprocess.run([keygen, "-o", "x25519.key"], check=True, capture_output=True)
    public = subprocess.run([keygen, "-y", "x25519.key"], check=True, capture_output=True, text=True).stdout.strip()
    for name, kind, words in [("ed25519", "ed25519", ""), ("ed25519_locked", "ed25519", PASSPHRASE), ("rsa", "rsa", "")]:
        size = ["-b", "2048"] if kind == "rsa" else []
        subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", words, "-C", "test", "-f", name + ".key"], check=True)

    subprocess.run([age, "-r", public, "-o", "x25519.age", "plain"], check=True)
    subprocess.run([age, "-a", "-r", public, "-o", "armor.age", "plain"], check=True)
    for name in ("ed25519", "ed25519_locked", "rsa"):
        subprocess.run([age, "-R", name + ".key.pub", "-o", name + ".age", "short"], check=True)
    # One file for all of them.
    several = [part for name in ("ed25519", "ed25519_locked", "rsa") for part in ("-R", name + ".key.pub")]
    subprocess.run([age, *several, "-r", public, "-o", "several.age", "short"], check=True)
    code, said = at_terminal([age, "-p", "-o", "passphrase.age", "short"], [PASSPHRASE, PASSPHRASE])
    assert code == 0, said
    # An identity file that is encrypted itself.
    code, said = at_terminal([age, "-p", "-a", "-o", "x25519_locked.key", "x25519.key"], [PASSPHRASE, PASSPHRASE])
    assert code == 0, said
    # A folder as people encrypt it.
    tar = subprocess.run(["tar", "c", "short", "plain"], check=True, capture_output=True).stdout
    subprocess.run([age, "-r", public, "-o", "tar.age"], input=tar, check=True)
    for name in os.listdir("."):
        if name.endswith(".key"):
            os.chmod(name, 0o600)


if __name__ == "__main__":
    main()
