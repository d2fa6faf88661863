"""Files that are whole or not there and that others may read, and errors that name the file."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 beside the final name and rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # several processes may write one file
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors as safetensors, with the access rights of any new file (the umask's).

    safetensors' own writer renames a private temporary file, mode 0600, over `path`.
    """
    from safetensors.torch import save_file

    path.touch()
    usual = path.stat().st_mode
    save_file(dict(tensors), path, metadata=dict(metadata))
    path.chmod(usual)


def flush_to_disk(path: Path) -> None:
    """Return once the content of a file is on the disk."""
    with path.open("r+b") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, as `write_text` does; file names that are not UTF-8 are escaped."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    if any("\ud800" <= character <= "\udfff" for character in text):
        text = json.dumps(value, indent=1)
    write_text(path, text)


def read_json(path: Path) -> Any:
    """Read JSON; a ValueError names the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None


_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def mistaken_for_data(path: Path) -> str | None:
    """Return what a file is that is only text where data were expected, to follow "it"; None for anything else.

    Downloads that failed are such files: pointers of Git LFS, web pages, a server's message.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return "is empty; copy or download it again"
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"^size (\d+)", head, re.MULTILINE)
        whole = f"the {int(size[1]):,} bytes" if size else "the file"
        return f'is a Git LFS pointer to {whole} that belong here; run "git lfs pull", or download the file itself'
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        title = _TITLE.search(head)
        said = f" ({_printable(title[1])})" if title else ""
        return f"is a web page{said}; download the file itself, from the link that a browser saves"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    if all(c.isprintable() or c in "\t\r\n\ufeff" for c in text):
        return f"is text that begins with {_printable(head)}; download the file again"
    return None


def _printable(text: bytes) -> str:
    """Return the start of some text on one line, in quotes."""
    line = " ".join(text.decode("utf-8", errors="replace").split())
    return repr("".join(c for c in line if c.isprintable())[:60])


def array_fault(path: Path, error: Exception) -> str:
    """Return why NumPy could not read an array file, without its advice to switch safety off."""
    found = mistaken_for_data(path) if path.is_file() else None
    if found is not None:
        return f"it {found}"
    return "it holds Python objects, or is damaged" if "pickle" in str(error) else str(error)
