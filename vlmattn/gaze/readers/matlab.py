"""MATLAB's files, read without running anything in them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError


def load_mat(path: str | Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The variables of a MATLAB file of version 4 to 7.2; structs are objects with fields, cells are object arrays.

    Args:
        names: of the variables that are needed; None for all.

    Raises:
        FileError: missing, cut short, no MATLAB file, of version 7.3 (HDF5), or without one of the variables.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    target = Path(path)
    if not target.is_file():  # scipy has the same error for this as for a file that it cannot read
        raise FileError(f"{target} does not exist")
    try:
        held = loadmat(target, variable_names=names, struct_as_record=False, squeeze_me=True, appendmat=False)
    except NotImplementedError as error:
        raise FileError(f"{target} is of MATLAB's version 7.3 (HDF5): save it with -v7 first") from error
    except (
        MatReadError, OSError, ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError,
        zlib.error, struct.error, UnicodeDecodeError, AttributeError,
    ) as error:  # fmt: skip
        raise FileError(f"{target} cannot be read as a MATLAB file: {error or type(error).__name__}") from error
    missing = [name for name in names or () if name not in held]
    if missing:
        there = [name for name in held if not name.startswith("__")]
        raise FileError(f"{target} has no variable {missing[0]!r}; it has {there or 'none'}")
    return {name: value for name, value in held.items() if not name.startswith("__")}


def struct_field(value: Any, name: str, place: str) -> Any:
    """A struct's field. Raises FileError: it is no struct, or lacks the field."""
    if name not in getattr(value, "_fieldnames", ()):
        told = getattr(value, "_fieldnames", None) or type(value).__name__
        raise FileError(f"{place}: expected a struct with the field {name!r}, got {told}")
    return getattr(value, name)
