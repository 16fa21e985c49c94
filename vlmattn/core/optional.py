"""Libraries that may be absent: the one place that says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from vlmattn.core.errors import DependencyMissing


def require(module: str, *, extra: str) -> ModuleType:
    """The module, or an error that names the extra it comes with.

    Raises:
        DependencyMissing: ``module`` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DependencyMissing(f"{module} is needed for this: pip install 'vlmattn[{extra}]' ({error})") from error


def cv2() -> ModuleType:
    """OpenCV.

    Raises:
        DependencyMissing: not installed, or the system lacks the graphics library that its desktop build loads.
    """
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        if "libGL" in str(error) or "libgthread" in str(error):
            raise DependencyMissing(
                f"OpenCV's desktop build needs a graphics library that this system lacks ({error}): pip uninstall "
                "opencv-python && pip install opencv-python-headless"
            ) from error
        raise DependencyMissing(f"OpenCV is needed for this: pip install opencv-python ({error})") from error
