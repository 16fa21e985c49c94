"""Recipes: which map says where to look again, what is cut out there, and how it is shown; each with its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite
from numbers import Integral, Real
from typing import Any, Literal

from vlmattn.core.errors import SpecError
from vlmattn.core.head_preset import HeadPreset

Signal = Literal["raw", "relative", "contrast", "gradient", "pure_gradient"]
Step = Literal["first", "last", "every"]
PlaceRule = Literal["regions", "window", "peak"]
Outside = Literal["keep", "black", "mean", "blur", "fade"]
Magnify = Literal["none", "fit", "cover"]
Shown = Literal["both", "crop"]

SUFFIX = "Answer the question using a single word or phrase."
"""What CARVE and ViCrop write behind the question and behind the general prompt."""

_WORDS: dict[str, tuple[Any, ...]] = {
    "signal": ("raw", "relative", "contrast", "gradient", "pure_gradient"),
    "steps": ("first", "last", "every"),
    "weights": ("even", "number"),
    "floor_of": ("absolute", "mean"),
    "smooth": (None, "bilinear"),
    "place": ("regions", "window", "peak"),
    "neighbours": (4, 8),
    "rank": ("sum", "area"),
    "outside": ("keep", "black", "mean", "blur", "fade"),
    "crop": (True, False),
    "magnify": ("none", "fit", "cover"),
    "pictures": ("both", "crop"),
}
_GRADIENTS = ("gradient", "pure_gradient")
_IDLE: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("signal", "raw", ("floor", "floor_of", "clip", "weights")),
    ("signal", "relative", ("clip", "weights")),
    ("signal", "gradient", ("floor", "floor_of", "clip", "weights", "steps")),
    ("signal", "pure_gradient", ("clip", "weights", "steps", "layers", "heads")),
    ("place", "regions", ("window_px", "window_share", "ratios")),
    ("place", "window", ("share", "neighbours", "rank", "keep", "least_share")),
    ("place", "peak", ("share", "neighbours", "rank", "keep", "least_share", "ratios")),
    ("crop", False, ("magnify",)),
)
"""What a choice leaves without effect."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a refinement.

    Attributes:
        name, source, note: what it is called, where it comes from, what differs from there.
        signal: ``raw`` attention, ``relative`` (over the general pass, with a lowest divisor), ``contrast`` (CARVE:
            over the general pass plus λ, step by step and layer by layer), ``gradient`` (attention times its positive
            gradient), ``pure_gradient`` (of the pixels, over that of the general prompt).
        steps: answer tokens whose predicting rows count: ``first`` (CARVE's t_start), ``last`` (t_end) or ``every``;
            gradients are of the first.
        weights: of several steps: ``even``, or their ``number`` from 1.
        layers, heads: numbers or a preset of :mod:`vlmattn.maps`; None for all kept ones.
        floor, floor_of: λ, or the lowest divisor: a number (``absolute``), or that times the general map's ``mean``
            (of ``pure_gradient``, the mean over busy pixels).
        clip: quantile at which ratios are cut off; None for none.
        smooth: None or ``bilinear``: from patches to pixels.
        place: ``regions`` of the mask (CARVE), the best ``window`` (ViCrop), or a window round the ``peak``.
        share: of the seen pixels that the mask holds, above 0 to 1; 1 is the whole picture.
        neighbours: pixels that touch: 4, or 8 with corners. rank: regions by ``sum`` of the map inside or ``area``.
        keep: how many regions at most; None for CARVE's max(3, a fifth of them). least_share: of the mask, below
            which regions are left out.
        window_px, window_share: side of the window, in pixels, or as a share of the picture's longer side.
        ratios: sizes of a ``window`` that are tried, times the side.
        outside: what becomes of pixels outside the mask: ``keep``, ``black``, ``mean`` (the picture's mean colour),
            ``blur`` (Gaussian, a fiftieth of the longer side), ``fade`` (every pixel times its map value between 0 and
            1, mask or not).
        crop: whether the box is cut out. margin: added on each side, as a share of the box.
        magnify: enlarge what was cut out until it ``fit``s into the picture's size or ``cover``s it, never shrunk;
            ``none`` leaves that to the model's processor.
        pictures: shown the second time: ``both`` (the picture, then the refined one) or ``crop`` (the refined one).
        suffix: written behind the question and the general prompt, if the question does not end with it; the task
            pass is then run again.

    Raises:
        SpecError: a value that cannot be; names the field.

    Example:
        >>> from vlmattn.refine import RECIPES
        >>> RECIPES["carve"].but(share=0.3, steps="last").share
        0.3
    """

    name: str
    source: str
    note: str = ""
    signal: Signal = "raw"
    steps: Step = "first"
    weights: Literal["even", "number"] = "even"
    layers: int | str | Sequence[int] | None = None
    heads: str | HeadPreset | Sequence[int] | None = None
    floor: float = 0.0
    floor_of: Literal["absolute", "mean"] = "mean"
    clip: float | None = None
    smooth: Literal["bilinear"] | None = None
    place: PlaceRule = "peak"
    share: float = 0.2
    neighbours: Literal[4, 8] = 4
    rank: Literal["sum", "area"] = "sum"
    keep: int | None = None
    least_share: float = 0.0
    window_px: int | None = None
    window_share: float | None = 0.5
    ratios: tuple[float, ...] = (1.0,)
    outside: Outside = "keep"
    crop: bool = True
    margin: float = 0.0
    magnify: Magnify = "none"
    pictures: Shown = "crop"
    suffix: str = ""

    def __post_init__(self) -> None:
        for name, allowed in _WORDS.items():
            if getattr(self, name) not in allowed:
                raise SpecError(f"{name} must be one of {', '.join(map(str, allowed))}, got {getattr(self, name)!r}")
        check_number("floor", self.floor, 0.0, None)
        check_number("share", self.share, 0.0, 1.0, open_low=True)
        check_number("least_share", self.least_share, 0.0, 1.0)
        check_number("margin", self.margin, 0.0, None)
        if self.clip is not None:
            check_number("clip", self.clip, 0.0, 1.0, open_low=True)
        if self.keep is not None and not (is_whole(self.keep) and self.keep >= 1):
            raise SpecError(f"keep must be a whole number, at least 1, or None, got {self.keep!r}")
        if not isinstance(self.suffix, str):
            raise SpecError(f"suffix must be text, got {self.suffix!r}")
        if self.weights == "number" and self.signal != "contrast":
            raise SpecError(f"weights='number' goes with signal='contrast' only, got signal={self.signal!r}")
        if self.steps != "first" and self.signal in _GRADIENTS:
            raise SpecError(f"signal={self.signal!r} is of the first answer token: leave out steps={self.steps!r}")
        self._check_window()

    def _check_window(self) -> None:
        if (self.window_px is None) == (self.window_share is None):
            raise SpecError("give window_px or window_share, and None for the other")
        if self.window_px is not None and not (is_whole(self.window_px) and self.window_px >= 1):
            raise SpecError(f"window_px must be a whole number, at least 1, got {self.window_px!r}")
        if self.window_share is not None:
            check_number("window_share", self.window_share, 0.0, 1.0, open_low=True)
        if not isinstance(self.ratios, (tuple, list)) or not len(self.ratios):
            raise SpecError(f"ratios must be one number or more, got {self.ratios!r}")
        for ratio in self.ratios:
            check_number("ratios", ratio, 0.0, None, open_low=True)

    @property
    def idle(self) -> dict[str, str]:
        """Fields that decide nothing here, each with the choice that makes it so, as ``place='peak'``."""
        found: dict[str, str] = {}
        for name, value, without in _IDLE:
            if getattr(self, name) == value:
                found |= dict.fromkeys(without, f"{name}={value!r}")
        return found

    def but(self, **changes: Any) -> Recipe:
        """The same with some fields changed; ``window_px`` and ``window_share`` replace each other.

        Raises:
            SpecError: a field that does not exist, a value that cannot be, or a change of a field that decides nothing.
        """
        known, given = [f.name for f in fields(self)], set(changes)
        for name in changes:
            if name not in known:
                raise SpecError(f"a recipe has no field {name!r}; there are {', '.join(known[3:])}")
        for one, other in (("window_px", "window_share"), ("window_share", "window_px")):
            if changes.get(one) is not None and other not in changes:
                changes[other] = None
        made = replace(self, **changes)
        for name, why in made.idle.items():
            if name in given and _plain(getattr(made, name)) != _plain(getattr(self, name)):
                other = why.partition("=")[0]
                raise SpecError(f"{name} decides nothing with {why}: leave it out, or choose another {other}")
        return made

    def described(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def recipe_of(recipe: str | Recipe, changes: dict[str, Any]) -> Recipe:
    """A recipe by name, or as it is, with changes.

    Raises:
        SpecError: no such recipe or field.
    """
    if not isinstance(recipe, Recipe):
        if not isinstance(recipe, str) or recipe not in RECIPES:
            raise SpecError(f"recipe {recipe!r} does not exist; there are {', '.join(RECIPES)}")
        recipe = RECIPES[recipe]
    return recipe.but(**changes) if changes else recipe


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, (tuple, list, range)) else value


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, which truth values are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_number(name: str, value: Any, low: float, high: float | None, *, open_low: bool = False) -> None:
    """Raises SpecError unless it is a finite number from ``low`` (or above it) to ``high`` (None: without end)."""
    number = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if not number or value < low or (open_low and value == low) or (high is not None and value > high):
        ends = [f"above {low:g}" if open_low else f"at least {low:g}"] if isfinite(low) else []
        ends += [] if high is None else [f"at most {high:g}"]
        raise SpecError(f"{name} must be a finite number{' ' if ends else ''}{', '.join(ends)}, got {value!r}")


_CARVE = "Ge et al., Focusing by Contrastive Attention, arXiv 2509.06461"
_VICROP = "Zhang et al., MLLMs Know Where to Look, ICLR 2025, arXiv 2502.17422"
_API = "Yu et al., Attention Prompting on Image for Large Vision-Language Models, ECCV 2024, arXiv 2409.17143"
_SEVERAL = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
_FULL: dict[str, Any] = {
    "signal": "contrast", "layers": "carve", "smooth": "bilinear", "place": "regions", "outside": "black",
    "magnify": "cover", "pictures": "both",
}  # fmt: skip
_SEARCHED: dict[str, Any] = {
    "layers": "vicrop", "place": "window", "window_px": 336, "window_share": None, "ratios": _SEVERAL,
    "pictures": "both", "suffix": SUFFIX,
}  # fmt: skip

RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        Recipe("peak", "our choice", "the plain control: a crop round the peak of raw attention, all layers"),
        Recipe(
            "carve", _CARVE, "the paper's method with λ of the general map's own size and ratios clipped at 99.5 %",
            **_FULL, steps="every", weights="number", floor=0.05, clip=0.995,
        ),
        Recipe(
            "carve-code", f"{_CARVE}, released code", "λ = 1e-8, all steps weighted, regions ranked by sum",
            **_FULL, steps="every", weights="number", floor=1e-8, floor_of="absolute", suffix=SUFFIX,
        ),
        Recipe(
            "carve-paper", f"{_CARVE}, best setting of its tables", "the last step, three regions; λ as in the code",
            **_FULL, steps="last", floor=1e-8, floor_of="absolute", keep=3, suffix=SUFFIX,
        ),
        Recipe(
            "carve-crop", _CARVE, "the contrast of CARVE, cut out as a window round its peak; all layers",
            signal="contrast", steps="every", weights="number", floor=1.0, clip=0.995,
        ),
        Recipe("vicrop", f"{_VICROP}, rel-att", "divided by 1e-8 at least, where the paper has no floor",
            signal="relative", floor=1e-8, floor_of="absolute", **_SEARCHED,
        ),
        Recipe("vicrop-gradient", f"{_VICROP}, grad-att", signal="gradient", **_SEARCHED),
        Recipe(
            "vicrop-pure-gradient", f"{_VICROP}, pure-grad",
            "the general gradient is 1e-6 of its mean at least, where the paper has no floor",
            signal="pure_gradient", floor=1e-6, **{**_SEARCHED, "layers": None},
        ),
        Recipe(
            "mask", f"after {_API}", "everything but the mask blackened, no crop",
            place="regions", outside="black", crop=False,
        ),
        Recipe("blur", f"after {_API}", "everything but the mask blurred, no crop",
               place="regions", outside="blur", crop=False),
        Recipe("fade", _API, "the picture times the map, no crop; the map is raw attention of the model itself",
               smooth="bilinear", place="regions", outside="fade", crop=False),
    )
}  # fmt: skip
"""Named recipes. ``carve-…`` and ``vicrop-…`` follow their papers; ``peak`` is the plain crop they are measured by."""
