"""Checks what is inside a built wheel: everything needed, nothing else, and not too large."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

LARGEST = 25 << 20
NEEDED = (
    "vlmattn/__init__.py",
    "vlmattn/py.typed",
    "vlmattn/scene/models/scene/model.safetensors",
    "vlmattn/scene/models/scene/config.json",
    "vlmattn/scene/models/scene/tokenizer.json",
    "vlmattn/scene/models/scene/processor_config.json",
    "vlmattn/scene/models/scene/README.md",
    "vlmattn/scene/models/scene-prior/model.safetensors",
    "vlmattn/scene/models/scene-prior/README.md",
    "vlmattn/scene/models/scene-clip/open_clip_model.safetensors",
    "vlmattn/scene/models/scene-clip/README.md",
    "vlmattn/report/page.css",
    "vlmattn/report/page.html",
    "vlmattn/report/page.js",
    "vlmattn/report/controls.js",
    "vlmattn/report/draw.js",
    "vlmattn/report/geometry.js",
    "vlmattn/report/maps.js",
    "vlmattn/report/words.js",
    "vlmattn/cli/photo/coffee.jpg",
    "vlmattn/cli/photo/NOTICE.md",
)


def problems(wheel: Path) -> list[str]:
    """What is wrong with the wheel, one line each."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    found = [f"{name} is missing" for name in NEEDED if name not in names]
    foreign = [n for n in names if not n.startswith(("vlmattn/", "vlmattn-"))]
    found += [f"{name} does not belong in the wheel" for name in foreign]
    found += [f"{name} is a leftover" for name in names if "__pycache__" in name or name.endswith((".pyc", ".orig"))]
    size = wheel.stat().st_size
    return found + ([f"the wheel has {size} bytes, over {LARGEST}"] if size > LARGEST else [])


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print("\n".join(wrong) or f"{Path(sys.argv[1]).name}: {Path(sys.argv[1]).stat().st_size / 2**20:.1f} MiB, complete")
    sys.exit(1 if wrong else 0)
