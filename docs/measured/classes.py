"""Give a data set of `specreg dataset` classes, from the folders of its source pictures.

    python docs/measured/classes.py oa32.zip oa32-classes.zip oquartz sfx gothic base acc liquids cosmo evil env

copies the pictures and writes dataset.json with labels: the place of the first word that the folder's name starts with,
and one more class for the others.
"""

from __future__ import annotations

import collections
import json
import sys
import zipfile
from pathlib import Path


def label(source: str, words: list[str]) -> int:
    """Return the class of a source picture, such as textures/gothic_block/blocks10.jpg."""
    folder = source.removeprefix("textures/")
    return next((place for place, word in enumerate(words) if folder.startswith(word)), len(words))


def main(given: Path, target: Path, words: list[str]) -> None:
    """Write the copy and print how many pictures each class has."""
    with zipfile.ZipFile(given) as archive, zipfile.ZipFile(target, "w") as copy:
        described = json.loads(archive.read("dataset.json"))
        described["labels"] = [[name, label(source, words)] for name, source in described["sources"].items()]
        for name in archive.namelist():
            copy.writestr(name, json.dumps(described) if name == "dataset.json" else archive.read(name))
    counts = collections.Counter(place for _, place in described["labels"])
    print({(*words, "others")[place]: count for place, count in sorted(counts.items())})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
