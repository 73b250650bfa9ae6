"""Casts raw elements as torch does.

Usage: cast.py FOLDER. For every file FOLDER/in.DTYPE (torch's name of the dtype; raw little-endian elements) and
every dtype named in FOLDER/targets, writes FOLDER/FROM.to.TO with the elements that torch's `.to()` gives.
"""

import pathlib
import sys

import torch

folder = pathlib.Path(sys.argv[1])
targets = folder.joinpath("targets").read_text().split()
for path in sorted(folder.glob("in.*")):
    name = path.name.removeprefix("in.")
    source = torch.frombuffer(bytearray(path.read_bytes()), dtype=getattr(torch, name))
    for target in targets:
        if target != name:
            cast = source.to(getattr(torch, target)).contiguous().view(torch.uint8)
            folder.joinpath(f"{name}.to.{target}").write_bytes(cast.numpy().tobytes())
