"""Many maps in one byte a cell: what pages and services send to a browser."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError, MapError

_MOST_CELLS = 2**31


@dataclass(frozen=True, eq=False)
class QuantisedGrids:
    """Maps of K cells each, one byte a cell: value = low + step · level.

    A map's highest value has level 255 and its lowest level 0, so a value is told within half a step: 1/510 of the
    map's own range. Where nothing is negative, ``low`` is 0, and 0 stays 0.

    Attributes:
        levels: (…, K) uint8. low, step: (…) float32, one of each per map.

    Raises:
        MapError: shapes that do not belong together.

    Example:
        >>> quantised([[0.0, 0.4, 2.0]]).levels.tolist()
        [[0, 51, 255]]
    """

    levels: NDArray[np.uint8]
    low: NDArray[np.float32]
    step: NDArray[np.float32]

    def __post_init__(self) -> None:
        want = self.levels.shape[:-1]
        if self.levels.ndim < 1 or self.low.shape != want or self.step.shape != want:
            raise MapError(
                f"low and step must have the shape of levels without its last axis, {want}; got {self.low.shape} and "
                f"{self.step.shape}"
            )

    @property
    def values(self) -> NDArray[np.float32]:
        """(…, K) the values that the levels stand for."""
        return np.asarray(self.low[..., None] + self.step[..., None] * self.levels, dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``shape``, and ``levels``, ``low`` and ``step`` packed by :func:`packed`."""
        return {
            "shape": list(self.levels.shape),
            "levels": packed(self.levels),
            "low": packed(self.low.astype("<f4")),
            "step": packed(self.step.astype("<f4")),
        }

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> QuantisedGrids:
        """What :meth:`to_dict` gave.

        Raises:
            FileError: something is missing, damaged, or of another size.
        """
        try:
            shape = tuple(int(n) for n in held["shape"])
            parts = {name: held[name] for name in ("levels", "low", "step")}
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"these are no quantised grids: {error!r}") from error
        if not shape:
            raise FileError("these are no quantised grids: they have no shape")
        levels = unpacked(parts["levels"], np.dtype(np.uint8), shape)
        low, step = (unpacked(parts[name], np.dtype("<f4"), shape[:-1]) for name in ("low", "step"))
        return cls(levels, low, step)


def quantised(values: Any) -> QuantisedGrids:
    """Maps (…, K) with one byte a cell.

    Raises:
        MapError: NaN or infinity, or no cell.
    """
    array = np.asarray(values, dtype=np.float32)
    if array.ndim < 1 or array.shape[-1] < 1:
        raise MapError(f"maps must have shape (…, K) with K >= 1 cells, got {array.shape}")
    if not np.isfinite(array).all():
        raise MapError("maps must be finite, got NaN or infinity")
    low = np.minimum(array.min(axis=-1), np.float32(0))
    step = (array.max(axis=-1) - low) / np.float32(255)
    safe = np.where(step > 0, step, np.float32(1))[..., None]
    levels = np.clip(np.rint((array - low[..., None]) / safe), 0, 255).astype(np.uint8)
    return QuantisedGrids(levels, low, step)


def packed(array: NDArray[Any]) -> str:
    """An array's bytes in C order, deflated (zlib) and in base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode("ascii")


def unpacked(text: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """What :func:`packed` gave.

    Raises:
        FileError: damaged, or not as many bytes as the shape asks for.
    """
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count > _MOST_CELLS:
        raise FileError(f"an array of shape {shape} is not one that vlmattn packs")
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(text, validate=True), count * dtype.itemsize + 1)
    except (zlib.error, binascii.Error, TypeError, ValueError) as error:
        raise FileError(f"a packed array is damaged: {error}") from error
    if len(content) != count * dtype.itemsize:
        raise FileError(f"a packed array of shape {shape} must have {count * dtype.itemsize} bytes unpacked")
    return np.frombuffer(content, dtype=dtype).reshape(shape)
