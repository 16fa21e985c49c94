"""What a run was: everything that its answers depend on, and where it was made.

The first part, ``settings``, decides whether answers may be added to a folder; the second, ``environment``, may differ
between two sittings, and all of them are kept.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import write_json

if TYPE_CHECKING:
    from vlmattn.api import Vlm
    from vlmattn.hallucination import Item

MANIFEST = "manifest.json"
_PACKAGES = ("vlmattn", "torch", "transformers", "accelerate", "pillow", "numpy", "tokenizers")


@dataclass(frozen=True)
class Manifest:
    """Settings and environments of a run.

    Attributes:
        settings: benchmark, items and their prompts (a hash), model, revision, type, kernel, decoding, steering, seed,
            batch. environments: one per sitting: versions, machine, when.
    """

    settings: Mapping[str, Any]
    environments: tuple[Mapping[str, Any], ...]

    def save(self, folder: Path) -> None:
        """Write it."""
        write_json(folder / MANIFEST, {"settings": self.settings, "environments": list(self.environments)})

    @classmethod
    def load(cls, folder: Path) -> Manifest | None:
        """The manifest of a folder, or None where there is none.

        Raises:
            FileError: it is damaged.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            return cls(dict(held["settings"]), tuple(held["environments"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FileError(f"{path} is damaged ({error}): give another folder") from error

    def joined_by(self, other: Manifest) -> Manifest:
        """This manifest with another sitting.

        Raises:
            SpecError: its settings differ; says in what.
        """
        self.check(other.settings)
        return Manifest(self.settings, (*self.environments, *other.environments))

    def check(self, settings: Mapping[str, Any], *, known: Collection[str] | None = None) -> None:
        """Refuse other settings.

        Args:
            known: which of them are known yet; default: all.

        Raises:
            SpecError: they differ; says in what.
        """
        mine, theirs = (json.loads(json.dumps(one)) for one in (self.settings, settings))
        names = [n for n in mine | theirs if (known is None or n in known) and mine.get(n) != theirs.get(n)]
        if names:
            told = "; ".join(
                f"{name}: {_short(mine.get(name))} before, {_short(theirs.get(name))} now" for name in names
            )
            raise SpecError(f"the folder holds answers of another run ({told}): give another folder")


def _short(value: Any) -> str:
    return repr(value)[:80]


def manifest_of(
    vlm: Vlm, name: str, items: Sequence[Item], *, decoding: Mapping[str, Any], steering: Sequence[str], batch: int
) -> Manifest:
    """The manifest of a run that begins now."""
    told = vlm.describe()
    kept = ("model", "revision", "dtype", "attention", "family")
    settings = {
        "benchmark": name,
        "items": len(items),
        "prompts_sha256": prompts_hash(items),
        **{key: told.get(key) for key in kept},
        "decoding": {key: decoding[key] for key in sorted(decoding)},
        "steering": list(steering),
        "batch": batch,
    }
    return Manifest(settings, (environment(told.get("device")),))


def prompts_hash(items: Sequence[Item]) -> str:
    """SHA-256 over ids, prompts and names of pictures, in order."""
    digest = hashlib.sha256()
    for item in items:
        names = [Path(one).name if isinstance(one, (str, Path)) else "" for one in item.images]
        digest.update(json.dumps([item.id, item.prompt, item.image_id, names]).encode())
    return digest.hexdigest()


def environment(device: Any = None) -> dict[str, Any]:
    """Versions, machine and time."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": str(device),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
