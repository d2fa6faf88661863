"""Tensors of a safetensors file, such as latents, read by the row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from specreg._files import mistaken_for_data
from specreg.instruments.sources.containers import Container, Folder, pick
from specreg.instruments.sources.values import checked_dtype

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "float32", "F8_E4M3": "float32", "F8_E5M2": "float32",
    "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "I32": "int32", "I64": "int64", "BOOL": "bool",
    "U32": "uint32", "U64": "uint64", "C64": "complex64",
}  # fmt: skip
"""safetensors' names of dtypes, as NumPy's; those that NumPy lacks are read as float32."""
USUAL_KEYS = ("latents", "samples", "images")


class TensorFile:
    """One tensor of a safetensors file; the file stays open."""

    def __init__(self, container: Container, name: str, key: str | None) -> None:
        from safetensors import SafetensorError, safe_open

        if not isinstance(container, Folder):
            raise ValueError(f"{name} in {container.path}: safetensors are not read from archives; unpack it")
        path = container.path / name
        try:
            file: Any = safe_open(path, framework="pt")
            names = tuple(file.keys())
        except (SafetensorError, OSError) as error:
            found = mistaken_for_data(path) if path.is_file() else None
            raise ValueError(f"{path}: cannot be read as safetensors: {f'it {found}' if found else error}") from None
        self._slice = file.get_slice(pick(key, names, USUAL_KEYS, str(path)))
        self.shape: tuple[int, ...] = tuple(self._slice.get_shape())
        kind = str(self._slice.get_dtype())
        self.dtype: np.dtype[Any] = checked_dtype(np.dtype(_DTYPES.get(kind, "O")), str(path))
        if not self.shape:
            raise ValueError(f"{path}: expected a tensor of samples; got one number")

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows of the tensor."""
        part = self._slice[start:stop]
        values: NDArray[Any] = (part.float() if self.dtype == np.float32 else part).numpy()
        return values
