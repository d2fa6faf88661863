"""Files of a folder tree, through links, each folder once."""

from __future__ import annotations

import os
from pathlib import Path

from specreg._checks import warn_once


def list_files(folder: Path) -> list[str]:
    """Return the files in `folder` and its subfolders as POSIX paths relative to it, sorted by code point.

    Links to folders are followed. A folder that is reached by several ways is listed once, under its own name before a
    link's, so that links may form loops and no file is in two parts of a data set. A link to nothing is listed as a
    file where its name has an ending, so that reading it is an error that names it, and is warned about otherwise.

    Raises:
        OSError: a folder cannot be read; the error names it.
    """
    found: list[str] = []
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        links: list[Path] = []
        for start in waiting:
            _list_without_links(start, folder, entered, found, links)
        waiting = sorted(links)  # links only after all that is reached without them
    return sorted(found)


def _list_without_links(
    start: Path, root: Path, entered: set[tuple[int, int]], found: list[str], links: list[Path]
) -> None:
    """Add the files below `start` to `found`, and its links to folders to `links`."""
    folders = [start]
    while folders:
        here = folders.pop()
        status = here.stat()
        if (identity := (status.st_dev, status.st_ino)) in entered:
            continue
        entered.add(identity)
        with os.scandir(here) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = here / entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_dir():
                    links.append(path)
                elif entry.is_file() or (entry.is_symlink() and path.suffix):
                    found.append(path.relative_to(root).as_posix())
                elif entry.is_symlink():
                    warn_once(f"link {path}", f"{path} is left out: it leads to {path.readlink()}, which is not there")
