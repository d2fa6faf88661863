"""Samples of a run in files of a few each: drawn by several processes, and kept when drawing is interrupted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from specreg import modalities, processes
from specreg._files import read_json, whole, write_json, write_safetensors
from specreg._torch_files import load_safetensors
from specreg.evaluation import Trained
from specreg.modalities.protocol import Device

CHUNK = 64
"""Samples of one file."""


def draw(trained: Trained, prompts: Any, fingerprint: str, folder: Path, *, device: Device) -> list[Path]:
    """Return the files of sampling.count samples in `folder`, in order; those that are missing are drawn.

    Files of other weights, prompts (`fingerprint`) or samplers are removed. Each process of a launcher draws a share;
    all must call.
    """
    config, modality = trained.config, modalities.of(trained.config)
    made_of = {
        "weights": weights_sha256(trained.network),
        "prompts": fingerprint,
        "sampling": config.sampling.model_dump(mode="json", exclude={"batch_size", "count"}),
    }
    note = folder / "made-of.json"
    if processes.state().is_main_process:
        if not note.is_file() or read_json(note) != made_of:
            for old in folder.glob("*.safetensors"):
                old.unlink()
        write_json(note, made_of)
    processes.state().wait_for_everyone()
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


def unpacked(trained: Trained, files: list[Path]) -> Iterator[Any]:
    """Yield the samples of each file."""
    for path in files:
        yield modalities.of(trained.config).unpack(load_safetensors(path)[1])


def weights_sha256(network: nn.Module) -> str:
    """Return the SHA-256 of a network's tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + str(tensor.dtype).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _is_whole(path: Path) -> bool:
    """Return whether a file of samples can be read; a damaged one is drawn again."""
    if not path.is_file():
        return False
    try:
        load_safetensors(path)
    except ValueError:
        return False
    return True
