"""Folders and hub names that hold an adapter of PEFT (LoRA and its like), their base model beside them or elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlmattn.api.held import check_adapter_kind
from vlmattn.api.weights import few, first_line
from vlmattn.core.errors import DependencyMissing, ModelLoadError

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HUB = ("cache_dir", "local_files_only", "revision", "subfolder", "token")
# transformers would add an adapter that lies beside the base model by itself, and then tell only what that one lacks.
_NOT_BY_ITSELF: dict[str, Any] = {"adapter_kwargs": {"subfolder": "none"}}


@dataclass(frozen=True)
class Tuned:
    """An adapter and where its base model is.

    Attributes:
        place: folder or hub name of the adapter. kind: as PEFT calls it, such as ``LORA``.
        base: folder or hub name of the base model. base_options: where in it to look, for ``from_pretrained``.
        has_processor: whether a processor lies beside the adapter. extra: further options for the base model's weights.
    """

    place: str
    kind: str
    base: str
    base_options: dict[str, Any]
    has_processor: bool
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the model with its adapter is called."""
        where = "" if self.base == self.place else f" {self.place}"
        return f"{self.base} + {self.kind} adapter{where}"

    def add_to(self, model: Any, told: str, options: Mapping[str, Any]) -> None:
        """Put the adapter into the layers of its base model.

        Raises:
            ModelLoadError: it does not fit, or lacks weights.
        """
        hub = {k: v for k, v in options.items() if k in _HUB and v is not None}
        try:
            found = model.load_adapter(
                self.place, use_safetensors=True, ignore_mismatched_sizes=True, adapter_kwargs=hub
            )
        except Exception as error:
            raise ModelLoadError(f"the adapter in {told} cannot be put on {self.base}: {first_line(error)}") from error
        _check_fit(self, told, found)


def tuned_at(place: str, told: str, options: Mapping[str, Any]) -> Tuned | None:
    """The adapter at a place, or None if there is none.

    Raises:
        ModelLoadError: its settings cannot be read or name no base model, or its weights are missing or pickled.
        DependencyMissing: PEFT is not installed. UnsupportedModel: an adapter of a kind that cannot be used.
    """
    file = find(place, SETTINGS, options)
    if file is None:
        return None
    settings = _settings(file, told)
    kind = str(settings.get("peft_type", "")).rpartition(".")[2]
    check_adapter_kind(kind, settings)
    if find(place, WEIGHTS, options) is None:
        raise ModelLoadError(
            f"{told} holds an adapter without {WEIGHTS}: only safetensors are read, never pickled weights"
        )
    _check_installed(told)
    if find(place, "config.json", options) is not None:
        return Tuned(place, kind, place, dict(options), True, _NOT_BY_ITSELF)
    base = settings.get("base_model_name_or_path")
    if not base:
        raise ModelLoadError(
            f"{told} holds an adapter, but its {SETTINGS} names no base model: load that one yourself, add "
            "the adapter with PEFT, and give load(model, processor)"
        )
    there = {k: v for k, v in options.items() if k != "subfolder"} | {"revision": settings.get("revision")}
    own = any(find(place, name, options) is not None for name in ("processor_config.json", "preprocessor_config.json"))
    return Tuned(place, kind, str(base), {k: v for k, v in there.items() if v is not None}, own)


def find(place: str, name: str, options: Mapping[str, Any]) -> str | None:
    """The path of a file in a folder or in the cache of a hub name; None if it is not there."""
    from transformers.utils import cached_file

    hub = {k: v for k, v in options.items() if k in _HUB and v is not None}
    quiet = ("gated_repo", "missing_entries", "connection_errors")
    try:
        found = cached_file(place, name, **hub, **{f"_raise_exceptions_for_{what}": False for what in quiet})
    except (OSError, ValueError):  # no name of the hub at all: whoever loads the model says so
        return None
    return None if found is None else str(found)


def _settings(file: str, told: str) -> dict[str, Any]:
    try:
        with open(file, encoding="utf-8") as text:
            settings = json.load(text)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{SETTINGS} of {told} cannot be read: {first_line(error)}") from error
    if not isinstance(settings, dict):
        raise ModelLoadError(f"{SETTINGS} of {told} holds no settings")
    return settings


def _check_installed(told: str) -> None:
    from transformers.utils import is_peft_available

    if not is_peft_available():
        raise DependencyMissing(
            f"{told} holds an adapter, which would be left out without PEFT: pip install peft, or merge the adapter "
            "into its base model (merge_and_unload) and load that"
        )


def _check_fit(tuned: Tuned, told: str, found: Any) -> None:
    wrong: dict[str, Iterable[Any]] = {
        "lacks": found.missing_keys,
        "has, of another shape,": (key[0] if isinstance(key, tuple) else key for key in found.mismatched_keys),
        "has, without a place for them,": found.unexpected_keys,
    }
    for what, names in wrong.items():
        listed = sorted(map(str, names))
        if listed:
            raise ModelLoadError(
                f"the adapter in {told} does not fit {tuned.base}: it {what} {len(listed)} weights, among them "
                f"{few(listed)}. Take the base model that it was made for"
            )
