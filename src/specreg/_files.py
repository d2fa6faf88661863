"""Files that are whole or not there and that others may read, and errors that name the file."""

from __future__ import annotations

import json
import os
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
