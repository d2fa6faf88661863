"""Fields on a square grid in float arrays, normalized variable by variable."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specreg.data.arrays import open_arrays

SCALE = 0.5
"""Standard deviation of a normalized variable: about that of images in [-1, 1], which EDM's preconditioning expects."""

_AT_ONCE = 1 << 24  # values of a block of fields


class Normalization(NamedTuple):
    """What each variable of a data set is shifted and divided by."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalized(self, fields: Tensor) -> Tensor:
        """Return fields `[…, C, H, W]` in data units with mean 0 and standard deviation `SCALE`, float32."""
        mean, std = self._columns()
        return ((fields.double() - mean) * (SCALE / std)).float()

    def restored(self, fields: Tensor) -> Tensor:
        """Return normalized fields in data units, float32."""
        mean, std = self._columns()
        return (fields.double().cpu() * (std / SCALE) + mean).float()

    def _columns(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in self)
        return mean, std


class FieldDataset:
    """Fields in a .npy (mapped into memory) or .npz: floats `[N, H, H]` or `[N, C, H, H]`; `item(i)` is normalized.

    Args:
        path: the file; of an .npz the array called fields or arr_0, or its only one.
        resolution: samples a side that the fields must have.
        normalization: that of the training set; of these fields when None.

    Raises:
        ValueError: for files that cannot be read, arrays of another kind or shape, NaN or infinity, and variables that
            are constant.
    """

    labels = None

    def __init__(self, path: Path, *, resolution: int, normalization: Normalization | None = None) -> None:
        self.path, self.resolution = path, resolution
        self._fields = self._open()
        self.normalization = normalization or self._measured()
        if len(self.normalization.mean) != self._fields.shape[1]:
            raise ValueError(
                f"{path}: expected fields of {len(self.normalization.mean)} variables, as those of training; "
                f"got {self._fields.shape[1]}"
            )

    def __len__(self) -> int:
        return len(self._fields)

    def item(self, i: int) -> Tensor:
        """Return field `i`, `[C, H, H]`, normalized."""
        return self.normalization.normalized(self.raw(i))

    def raw(self, i: int) -> Tensor:
        """Return field `i` in data units, `[C, H, H]` float32."""
        field = torch.from_numpy(np.array(self._fields[i], dtype=np.float32))
        if not bool(field.isfinite().all()):
            raise ValueError(f"{self.path}: expected finite fields; field {i} holds NaN or infinity")
        return field

    def label(self, i: int) -> None:
        """Return None: fields have no classes."""

    def _open(self) -> NDArray[np.floating]:
        fields, _ = open_arrays(self.path, ("fields", "arr_0"))
        if fields.dtype.kind != "f":
            raise ValueError(f"{self.path}: fields must be floats; got {fields.dtype}")
        if fields.ndim == 3:
            fields = fields[:, None]
        side = self.resolution
        if fields.ndim != 4 or fields.shape[2:] != (side, side):
            raise ValueError(
                f"{self.path}: expected fields [N, {side}, {side}] or [N, C, {side}, {side}] (data.resolution is "
                f"{side}); got {list(fields.shape)}"
            )
        if fields.size == 0:
            raise ValueError(f"{self.path}: expected fields; got none: its shape is {list(fields.shape)}")
        return fields

    def _measured(self) -> Normalization:
        """Return mean and standard deviation of each variable, in blocks."""
        size = max(1, _AT_ONCE // self._fields[0].size)
        count, total, squares = 0, np.zeros(self._fields.shape[1]), np.zeros(self._fields.shape[1])
        shift: NDArray[np.float64] | None = None  # near the mean, so that little is lost in the difference of squares
        for start in range(0, len(self._fields), size):
            block = np.asarray(self._fields[start : start + size], dtype=np.float64)
            if not np.isfinite(block).all():
                bad = start + int(np.argmin(np.isfinite(block).all((1, 2, 3))))
                raise ValueError(f"{self.path}: expected finite fields; field {bad} holds NaN or infinity")
            shift = block.mean((0, 2, 3)) if shift is None else shift
            block = block - shift[:, None, None]
            count += block[:, 0].size
            total, squares = total + block.sum((0, 2, 3)), squares + (block**2).sum((0, 2, 3))
        assert shift is not None  # there is a field
        mean = total / count
        variance = squares / count - mean**2
        if (variance <= (1e-12 * shift) ** 2).any():
            raise ValueError(f"{self.path}: variable {int(variance.argmin())} has one value everywhere")
        return Normalization(tuple((mean + shift).tolist()), tuple(np.sqrt(variance).tolist()))
