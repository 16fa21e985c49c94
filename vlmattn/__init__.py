"""Where a vision-language model looks, whether that look is real, and what to do when it is not.

>>> import vlmattn as va
>>> vlm = va.load("scene")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmattn import (
        adapters,
        capture,
        detection,
        display,
        evaluate,
        export,
        faithfulness,
        gaze,
        grid,
        hallucination,
        heads,
        maps,
        overlay,
        pipelines,
        refine,
        report,
        scene,
        sinks,
        steering,
        trace,
    )
    from vlmattn.api import Clip, Look, Run, VideoLook, Vlm, load, load_clip, load_run
    from vlmattn.capture import CaptureSpec, Steering
    from vlmattn.core import errors
    from vlmattn.core.errors import VlmattnError
    from vlmattn.core.images import load_image
    from vlmattn.core.provenance import Provenance
    from vlmattn.core.videos import Video, load_video
    from vlmattn.grid import PatchMap, PixelMap
    from vlmattn.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "CaptureSpec",
    "Clip",
    "Look",
    "PatchMap",
    "PixelMap",
    "Provenance",
    "Run",
    "Steering",
    "Trace",
    "Video",
    "VideoLook",
    "Vlm",
    "VlmattnError",
    "adapters",
    "capture",
    "detection",
    "display",
    "errors",
    "evaluate",
    "export",
    "faithfulness",
    "gaze",
    "grid",
    "hallucination",
    "heads",
    "load",
    "load_clip",
    "load_image",
    "load_run",
    "load_video",
    "maps",
    "overlay",
    "pipelines",
    "refine",
    "report",
    "scene",
    "sinks",
    "steering",
    "trace",
]

_HOMES = {
    "CaptureSpec": "vlmattn.capture",
    "Clip": "vlmattn.api",
    "Look": "vlmattn.api",
    "PatchMap": "vlmattn.grid",
    "PixelMap": "vlmattn.grid",
    "Provenance": "vlmattn.core.provenance",
    "Run": "vlmattn.api",
    "Steering": "vlmattn.capture",
    "Trace": "vlmattn.trace",
    "Video": "vlmattn.core.videos",
    "VideoLook": "vlmattn.api",
    "Vlm": "vlmattn.api",
    "VlmattnError": "vlmattn.core.errors",
    "errors": "vlmattn.core",
    "load": "vlmattn.api",
    "load_clip": "vlmattn.api",
    "load_image": "vlmattn.core.images",
    "load_run": "vlmattn.api",
    "load_video": "vlmattn.core.videos",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that importing the package costs nothing until a name is used.
    if name not in __all__:
        raise AttributeError(f"module 'vlmattn' has no attribute {name!r}")
    home = _HOMES.get(name)
    if home is None or name == "errors":
        return import_module(f"vlmattn.core.{name}" if home else f"vlmattn.{name}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
