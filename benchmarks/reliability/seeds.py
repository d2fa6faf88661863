"""Good inputs of each kind, ways to damage them, and what reads them."""

from __future__ import annotations

import io
import json
import random
import string
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)


class Kind(NamedTuple):
    """A kind of input."""

    seeds: Callable[[Path], dict[str, bytes]]  # good inputs by file name
    damage: Callable[[random.Random, bytes, list[bytes]], bytes]
    read: Callable[[Path], Any]


def damaged(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Return bytes with some random changes: bits, numbers at limits, parts cut, doubled, moved or taken elsewhere."""
    data = bytearray(content)
    for _ in range(1 + int(rng.expovariate(0.7))):
        at, size = rng.randrange(len(data) + 1), min(int(rng.expovariate(0.05)) + 1, 4096)
        way = rng.randrange(8)
        if way < 2 and data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif way == 2:
            data[at : at + size] = rng.randbytes(size)
        elif way == 3:
            form = rng.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
            width = struct.calcsize(form)
            data[at : at + width] = struct.pack(form, rng.choice(NUMBERS) % (1 << 8 * width))
        elif way == 4:
            del data[at : at + size]
        elif way == 5:
            data[at:at] = data[at : at + size] * rng.choice((1, 1, 2, 50))
        elif way == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at : at + size] = other[start : start + size]
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def _pictures(folder: Path) -> dict[str, bytes]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    made = {}
    for name, kind, image in (
        *(
            (f"{kind.lower()}.{kind.lower()}", kind, Image.fromarray(pixels[0]))
            for kind in ("PNG", "BMP", "PPM", "WEBP")
        ),
        *(("j.jpg", "JPEG", Image.fromarray(pixels[1])), ("t.tif", "TIFF", Image.fromarray(pixels[2]))),
        *(("g.gif", "GIF", Image.fromarray(pixels[2])), ("a.tga", "TGA", Image.fromarray(pixels[3]))),
        ("grey.png", "PNG", Image.fromarray((pixels[0, :, :, 0].astype(np.uint16) << 8) + 5)),
        ("palette.png", "PNG", Image.fromarray(pixels[3]).convert("P")),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        made[name] = buffer.getvalue()
    labels = json.dumps({"labels": [[name, i] for i, name in enumerate(made)]}).encode()
    zips = {}
    for name, compression in (("stored.zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED),
                              ("bzip2.zip", zipfile.ZIP_BZIP2), ("lzma.zip", zipfile.ZIP_LZMA)):  # fmt: skip
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for member, content in {**made, "dataset.json": labels}.items():
                archive.writestr(member, content)
        zips[name] = buffer.getvalue()
    return {**made, **zips}


def _read_pictures(path: Path) -> None:
    from specreg.data import ImageDataset
    from specreg.data.files import ImageFiles

    if path.suffix != ".zip":
        files = ImageFiles(path.parent)
        files.image(path.name)
        return
    data = ImageDataset(path)
    for i in range(min(len(data), 12)):
        try:
            data.item(i)
        except ValueError:  # of another size, or damaged: the next may break the rule
            continue


def _arrays(folder: Path) -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    made = {}
    for name, array in (("a.npy", pixels), ("b.npy", np.asfortranarray(pixels[..., 0])), ("c.npy", pixels[:1, :2, :2])):
        buffer = io.BytesIO()
        np.save(buffer, array)
        made[name] = buffer.getvalue()
    for name, save in (("d.npz", np.savez), ("e.npz", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, images=pixels, labels=np.arange(4))
        made[name] = buffer.getvalue()
    return made


def _read_array(path: Path) -> None:
    from specreg.data import ImageDataset

    data = ImageDataset(path)
    data.item(len(data) - 1)
    data.label(0)


def _checkpoints(folder: Path) -> dict[str, bytes]:
    from specreg.models import pretrained
    from specreg.models.network_config import NetworkConfig

    options = {"img_resolution": 4, "img_channels": 1, "model_channels": 8, "channel_mult": [1], "num_blocks": 1,
               "attn_resolutions": []}  # fmt: skip
    config = NetworkConfig("songunet", "edm", options)
    network = config.build()
    made = {"public.pkl": _public(config, network.state_dict())}
    for name in ("x.pt", "x.safetensors"):
        pretrained.save(folder / name, network, config=config)
        made[name] = (folder / name).read_bytes()
    return made


def _public(config: Any, tensors: Any) -> bytes:
    """Return a network in the public checkpoints' form, as the tests write it."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    import tempfile

    import reference_pickle

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pkl"
        reference_pickle.write(path, config, tensors)
        return path.read_bytes()


def _damaged_program(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Return a damaged checkpoint; half of the changes are made where the names and instructions are."""
    if rng.random() < 0.5:
        return damaged(rng, content, others)
    head = min(len(content), 3000)
    start = rng.choice((0, max(0, len(content) - head)))
    middle = damaged(rng, content[start : start + head], [content[:3000]])
    return content[:start] + middle + content[start + head :]


def _read_checkpoint(path: Path) -> None:
    from specreg.models import pretrained

    pretrained.read(path).build()


def _configs(folder: Path) -> dict[str, bytes]:
    from specreg.config import dump
    from specreg.modalities import parse
    from specreg.recipes import RECIPES

    return {f"{name}.yaml": dump(parse(recipe())).encode() for name, recipe in RECIPES.items()}


def _damaged_config(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Return a config with other bytes, or with other values under its keys."""
    if rng.random() < 0.3:
        return damaged(rng, content, others)
    tree = yaml.safe_load(content)
    for _ in range(rng.randint(1, 3)):
        here = tree
        while isinstance(here, dict) and here:
            key = rng.choice(list(here))
            if not isinstance(here[key], dict) or not here[key] or rng.random() < 0.2:
                here[key] = _anything(rng, 0)
                break
            here = here[key]
    return yaml.safe_dump(tree, allow_unicode=rng.random() < 0.5).encode(errors="surrogateescape")


def _anything(rng: random.Random, depth: int) -> Any:
    """Return a random plain value."""
    way = rng.randrange(12 if depth < 3 else 9)
    if way < 4:
        return rng.choice((1, -1)) * rng.choice((0, 1, 2, 3, 64, 10**3, 10**6, 10**12, 2**63, 2**64, 10**30, 10**400))
    if way == 4:
        return rng.choice((0.0, 1e-300, 0.5, 1.0, 1e30, 1e300, float("inf"), float("-inf"), float("nan")))
    if way == 5:
        return rng.choice((True, False, None, "", "auto", "1", "0x10", "1e5", "haar", "snr", "images", "audio", "flow"))
    if way < 9:
        letters = string.printable + "λé\u202f\u0085\x7f"
        return "".join(rng.choices(letters, k=rng.choice((1, 3, 10, 300))))
    if way == 9:
        return [_anything(rng, depth + 1) for _ in range(rng.randrange(5))]
    names = ("name", "weight", "levels", "ndim", "clip", "mean", "std", "steps", "1dd", "coupling", "norm", "x", "kind")
    return {rng.choice(names): _anything(rng, depth + 1) for _ in range(rng.randrange(4))}


def _read_config(path: Path) -> None:
    from specreg.config import dump
    from specreg.modalities import load, refuse_too_large

    config = load(path)
    dump(config).encode()
    refuse_too_large(config, processes=1)


KINDS = {
    "pickle": Kind(_checkpoints, _damaged_program, _read_checkpoint),
    "dataset": Kind(_pictures, damaged, _read_pictures),
    "array": Kind(_arrays, damaged, _read_array),
    "config": Kind(_configs, _damaged_config, _read_config),
}
