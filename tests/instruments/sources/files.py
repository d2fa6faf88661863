"""Files for tests of readers, made with other libraries, and what reading them should give."""

import io
import tarfile
import zipfile

import numpy as np
import torch
from PIL import Image


def noise(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def encoded(pixels, form="PNG", **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def folder_of(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return str(path)


def zip_of(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


def tar_of(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def floats(pixels):
    """Oracle: 8-bit pixels [N, H, W, C] as [N, C, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels.astype(np.float64).transpose(0, 3, 1, 2) / 127.5 - 1)


def everything(source):
    return source.read(0, len(source))
