"""Samples of a run in files of a few each: drawn by several processes, and kept when drawing is interrupted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specreg import modalities, processes
from specreg._files import first_entry, read_json, whole, write_json, write_safetensors
from specreg._torch_files import load_safetensors
from specreg.evaluation import Trained, weights_sha256
from specreg.modalities.protocol import Device

CHUNK = 64
"""Samples of one file."""

NOTE = "made-of.json"
"""File beside the samples that says what they were drawn from."""

_SAMPLES = re.compile(r"\d{8}-\d{8}\.safetensors")


def draw(trained: Trained, prompts: Any, fingerprint: str, folder: Path, *, device: Device) -> list[Path]:
    """Return the files of sampling.count samples in `folder`, in order; those that are missing are drawn.

    Samples of other weights, prompts (`fingerprint`) or samplers are removed, other files are not. Each process of a
    launcher draws a share; all must call.

    Raises:
        ValueError: the folder holds files that are no drawn samples.
    """
    config, modality = trained.config, modalities.of(trained.config)
    made_of = {
        "weights": weights_sha256(trained.network),
        "prompts": fingerprint,
        "sampling": config.sampling.model_dump(mode="json", exclude={"batch_size", "count"}),
    }
    problem = _prepare(folder, made_of) if processes.state().is_main_process else None
    if problem := processes.gather(problem)[0]:  # so that no process goes on, or waits, alone
        raise ValueError(problem)
    count = modality.count(config, prompts)
    parts = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    files = [folder / f"{part.start:08d}-{part.stop:08d}.safetensors" for part in parts]
    for i in processes.share(len(parts)):
        if _is_whole(files[i]):
            continue
        samples = modality.draw(config, trained.network, trained.shape, prompts, parts[i], device=device)
        with whole(files[i]) as partial:
            write_safetensors(partial, {name: t.contiguous() for name, t in modality.pack(samples).items()}, {})
    processes.state().wait_for_everyone()
    return files


def _prepare(folder: Path, made_of: dict[str, Any]) -> str | None:
    """Note what a folder's samples are drawn from, and remove samples of something else; return what forbids that."""
    note = folder / NOTE
    if not note.is_file() and (other := first_entry(folder)):
        return f"{folder}: expected an empty folder, or one with {NOTE}; it holds other files, such as {other.name}"
    if note.is_file() and read_json(note) != made_of:
        for old in folder.iterdir():
            if _SAMPLES.fullmatch(old.name):
                old.unlink()
    write_json(note, made_of)
    return None


def unpacked(trained: Trained, files: list[Path]) -> Iterator[Any]:
    """Yield the samples of each file."""
    for path in files:
        yield modalities.of(trained.config).unpack(load_safetensors(path)[1])


def _is_whole(path: Path) -> bool:
    """Return whether a file of samples can be read; a damaged one is drawn again."""
    if not path.is_file():
        return False
    try:
        load_safetensors(path)
    except ValueError:
        return False
    return True
