"""Builds the corpus that judges the scanner: `make.py FOLDER [hostile] [benign]`.

Writes `FOLDER/hostile`, `FOLDER/bounded` and `FOLDER/benign`, and `FOLDER/expected.json`, which says of each file what
must hold. Payloads are inert, and no file is loaded again. corpus.py documents the list.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from corpus import Corpus  # noqa: E402


def main(folder, *halves):
    corpus = Corpus(folder)
    if not halves or "hostile" in halves:
        import containers
        import folders
        import formats
        import gadgets
        import services
        import pickles

        for part in (pickles, gadgets, containers, formats, services, folders):
            part.build(corpus)
    if not halves or "benign" in halves:
        import benign

        benign.build(corpus)
    corpus.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
