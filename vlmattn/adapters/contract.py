"""What every adapter must keep: the author of a new one runs ``check_adapter`` and reads the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmattn.adapters.adapter import Adapter
from vlmattn.adapters.paint import paint_faults
from vlmattn.adapters.paint_tower import knows_tower, tower_faults
from vlmattn.adapters.paint_video import (
    CLIPS,
    cell_faults,
    clip_faults,
    frame_faults,
    mixed_faults,
    takes_videos,
    video_batch_faults,
)
from vlmattn.adapters.registry import adapter_for
from vlmattn.adapters.several import allowed, batch_faults, several_faults
from vlmattn.core.errors import ImageError, LayoutError, VlmattnError
from vlmattn.core.layout import ImageLayout, TokenKind, TokenLayout
from vlmattn.display import Told

Sizes = Sequence[tuple[int, int]]
Paint = Callable[[Adapter, tuple[int, int], np.random.Generator], tuple[list[str], int]]
SIZES: Sizes = ((1, 1), (1, 300), (300, 1), (64, 64), (90, 60), (61, 97), (333, 777), (8000, 50), (50, 8000))
PAINTED: Sizes = ((96, 96), (180, 120), (113, 201), (400, 100), (100, 400))
QUESTIONS = (
    "What is on the stove?",
    "Is the cat 🐱 asleep? And the 👩‍👩‍👧 family 🇫🇷?",
    "ما لون السيارة؟",
    "{braces} and %s and \\n stay",
    "  padded   question\n",
    "a",
)


@dataclass(frozen=True)
class Check:
    """One clause of the contract: what was checked, on how many cases, and what was wrong."""

    name: str
    cases: int
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if something was checked and nothing was wrong."""
        return self.cases > 0 and not self.faults


@dataclass(frozen=True)
class ContractReport(Told):
    """All clauses for one model and processor."""

    adapter: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """True if every clause holds."""
        return all(c.ok for c in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        checks = [{"name": c.name, "cases": c.cases, "faults": list(c.faults), "ok": c.ok} for c in self.checks]
        return {"adapter": self.adapter, "ok": self.ok, "checks": checks}

    def __str__(self) -> str:
        lines = [f"{self.adapter}: {'keeps the contract' if self.ok else 'BREAKS THE CONTRACT'}"]
        for check in self.checks:
            lines.append(f"  {'ok  ' if check.ok else 'FAIL'} {check.name} ({check.cases} cases)")
            lines += [f"       {fault}" for fault in check.faults[:5]]
        return "\n".join(lines)


def check_adapter(
    model: Any,
    processor: Any,
    *,
    sizes: Sizes = SIZES,
    painted: Sizes = PAINTED,
    seed: int = 0,
    raises: bool = True,
) -> ContractReport:
    """Check the adapter of a model against the contract that the rest of vlmattn relies on.

    Args:
        sizes: (width, height) of pictures for counts and boxes. ``painted``: of pictures for the paint check.
        raises: raise instead of returning a report with faults.

    Raises:
        LayoutError: the report, if a clause does not hold and ``raises``.
        UnsupportedModel: no adapter serves the model.
    """
    report = contract_of(adapter_for(model, processor), sizes=sizes, painted=painted, seed=seed)
    if raises and not report.ok:
        raise LayoutError(str(report))
    return report


def contract_of(
    adapter: Adapter,
    *,
    sizes: Sizes = SIZES,
    painted: Sizes = PAINTED,
    seed: int = 0,
    paint: Paint = paint_faults,
) -> ContractReport:
    """The contract's clauses for an adapter; see :func:`check_adapter`. ``paint``: how a picture is painted."""
    rng, several = np.random.default_rng(seed), range(allowed(adapter, 3))
    checks = (
        _over("image tokens match what the model makes", sizes, lambda s: _count_faults(adapter, s, rng)),
        _over("every grid lies on the picture", sizes, lambda s: _box_faults(adapter.plan(s).layout)),
        _over("each cell has exactly one image token", sizes, lambda s: cell_faults(_encoded(adapter, s, rng))),
        _over("words are found where they were written", QUESTIONS, lambda q: _word_faults(adapter, q, rng)),
        _over("answers decode to their text and spans", QUESTIONS, lambda q: _answer_faults(adapter, q)),
        _over("a batch is its prompts, padded", (2,), lambda _: batch_faults(adapter, rng)),
        _over("pictures of one prompt have places of their own", several, lambda k: several_faults(adapter, k, rng)),
        *([_tower_check(adapter, painted, rng)] if knows_tower(adapter) else []),
        *(_video_checks(adapter, rng) if takes_videos(adapter) else []),
        _paint_check(adapter, painted, rng, paint),
    )
    return ContractReport(repr(adapter), checks)


def _over(name: str, cases: Sequence[Any], faults: Callable[[Any], list[str]]) -> Check:
    # A picture that the family refuses for its shape is no case.
    found: list[str] = []
    held = 0
    for case in cases:
        try:
            found += [f"{case}: {fault}" for fault in faults(case)]
        except ImageError:
            continue
        except VlmattnError as error:
            found.append(f"{case}: {type(error).__name__}: {error}")
        held += 1
    return Check(name, held, tuple(found))


def _picture(size: tuple[int, int], rng: np.random.Generator) -> Any:
    from PIL import Image

    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def _encoded(adapter: Adapter, size: tuple[int, int], rng: np.random.Generator) -> TokenLayout:
    return adapter.encode([_picture(size, rng)], "What?").layouts[0]


def _count_faults(adapter: Adapter, size: tuple[int, int], rng: np.random.Generator) -> list[str]:
    """The model must accept the input (it counts for itself) and fill every image token."""
    encoded = adapter.encode([_picture(size, rng)], "What?")
    model = adapter.model
    try:
        merged = adapter.states_seen(encoded.to(next(model.parameters()).device, model.dtype).inputs)
    except (ValueError, RuntimeError) as error:
        return [f"the model refuses the input: {error}"]
    layout = encoded.layouts[0]
    if merged.shape[1] != len(layout):
        return [f"the model sees {merged.shape[1]} tokens, the layout has {len(layout)}"]
    return []


def _box_faults(layout: ImageLayout) -> list[str]:
    width, height = layout.image_wh
    faults = []
    for index, tile in enumerate(layout.tiles):
        x0, y0, x1, y1 = tile.source_box_xyxy
        if not np.isfinite([x0, y0, x1, y1]).all() or x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            faults.append(f"tile {index} spans {tile.source_box_xyxy}, outside {width} x {height}")
    return faults or ([] if layout.tiles else ["no tiles"])


def _word_faults(adapter: Adapter, question: str, rng: np.random.Generator) -> list[str]:
    layout = adapter.encode([_picture((40, 40), rng)], question).layouts[0]
    start, end = layout.question_span
    faults = []
    if layout.text[start:end] != question.strip():
        faults.append(f"question_span covers {layout.text[start:end]!r}")
    covered = np.zeros(len(layout.text), dtype=bool)
    for a, b in layout.char_span[layout.kinds == TokenKind.QUESTION]:
        covered[a:b] = True
    missed = [c for c, hit in zip(layout.text[start:end], covered[start:end], strict=True) if not hit and c.strip()]
    return [*faults, f"no token covers {missed}"] if missed else faults


def _answer_faults(adapter: Adapter, text: str) -> list[str]:
    ids = adapter.tokenizer(text, add_special_tokens=False)["input_ids"]
    decoded, spans = adapter.decode_answer(ids)
    if decoded != text.strip():
        return [f"decoded as {decoded!r}"]
    covered = np.zeros(len(decoded), dtype=bool)
    for a, b in spans[spans[:, 0] >= 0]:
        covered[a:b] = True
    return [] if covered.all() and len(spans) == len(ids) else ["spans leave characters out"]


def _tower_check(adapter: Adapter, sizes: Sizes, rng: np.random.Generator) -> Check:
    faults: list[str] = []
    painted = 0
    for size in sizes[1:2] or sizes:
        found, count = tower_faults(adapter, size, rng)
        faults += found
        painted += count
    return Check("a painted cell changes its own tokens of the vision tower", painted, tuple(faults))


def _video_checks(adapter: Adapter, rng: np.random.Generator) -> list[Check]:
    faults: list[str] = []
    painted = 0
    for wh, frames in CLIPS[:2]:
        found, count = frame_faults(adapter, wh, frames, rng)
        faults += found
        painted += count
    return [
        _over("a video's frames have their own grids", CLIPS, lambda clip: clip_faults(adapter, *clip)),
        _over("videos of one prompt, and pictures beside them, stay apart", (2,), lambda _: mixed_faults(adapter)),
        _over("a batch of videos is its prompts, padded", (2,), lambda _: video_batch_faults(adapter)),
        Check("a spot on a frame changes the token of its own grid alone", painted, tuple(faults)),
    ]


def _paint_check(adapter: Adapter, sizes: Sizes, rng: np.random.Generator, paint: Paint) -> Check:
    faults: list[str] = []
    painted = 0
    for size in sizes:
        try:
            found, count = paint(adapter, size, rng)
        except ImageError:  # refused for its shape
            continue
        faults += found
        painted += count
    return Check("a painted spot changes the token that the geometry names", painted, tuple(faults))
