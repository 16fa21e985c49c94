"""Where people looked: one subject's scanpath on one picture, and sets of them.

Units are the same everywhere: ``x``, ``y`` in pixels of the original picture, origin at its top-left corner, x right,
y down, a pixel's centre at +0.5 (so the pixel of a fixation is its floor); ``start`` and ``duration`` in seconds.
Formats that say otherwise (milliseconds, rows before columns, counting from 1) are converted by their reader.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import SpecError
from vlmattn.display import Tabular, columns_of, html_table, panel, rows_of
from vlmattn.gaze.columns import rows_of_columns, table
from vlmattn.gaze.screen import Screen
from vlmattn.gaze.units import (
    Outside,
    check_durations,
    check_points,
    check_starts,
    check_wh,
    clip_to,
    inside,
    usable,
    warn_of_units,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scanpath:
    """The fixations of one subject on one picture, in order.

    No fixation at all is a scanpath (the subject never looked at the picture), and so is one fixation (no saccade);
    every metric says what it makes of them. Points off the picture are kept until :meth:`outside` drops or clips them.

    Attributes:
        x, y: (n,) float64, pixels of the picture. image_wh: its width and height.
        start: (n,) seconds since the picture appeared, strictly increasing, or None. duration: (n,) seconds, above 0,
            or None.
        subject, task, image: names, or None. ``task`` is what the subject was asked, if anything.
        screen: pixels per degree of visual angle, or None where it is not known.
        trial: other facts in plain values (split, condition, target box).

    Raises:
        SpecError: NaN or infinite values, lengths that differ, a duration of 0 or less, starts out of order; the
            message names the fixation. :meth:`of` drops what is missing instead.

    Warns:
        GazeWarning: values that look like another unit: shares or degrees for pixels, milliseconds for seconds.

    Example:
        >>> path = Scanpath([320.5, 100.0, 700.0], [240.5, 90.0, 10.0], (640, 480), duration=[0.2, 0.25, 0.3])
        >>> len(path), path.on_image().tolist(), len(path.outside("drop"))
        (3, [True, True, False], 2)
    """

    x: Array
    y: Array
    image_wh: tuple[int, int]
    start: Array | None = None
    duration: Array | None = None
    subject: str | None = None
    task: str | None = None
    image: str | None = None
    screen: Screen | None = None
    trial: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wh = check_wh(self.image_wh)
        x, y = check_points(self.x, self.y)
        start, duration = check_starts(self.start, len(x)), check_durations(self.duration, len(x))
        warn_of_units(x, y, wh, duration)
        for name in ("subject", "task", "image"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                object.__setattr__(self, name, str(value))
        held = {"x": x, "y": y, "image_wh": wh, "start": start, "duration": duration, "trial": dict(self.trial)}
        for name, kept in held.items():
            object.__setattr__(self, name, kept)

    @classmethod
    def of(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        image_wh: tuple[int, int],
        *,
        start: ArrayLike | None = None,
        duration: ArrayLike | None = None,
        outside: Outside = "keep",
        **named: Any,
    ) -> Scanpath:
        """A scanpath without the fixations that have a missing (NaN) value or a duration of 0 or less.

        Args:
            outside: what becomes of fixations off the picture: see :meth:`outside`. named: the other attributes.

        Example:
            >>> len(Scanpath.of([1.0, float("nan"), 3.0], [1, 1, 1], (9, 9), duration=[0.1, 0.2, 0.0]))
            1
        """
        columns: dict[str, Any] = {"x": x, "y": y, "start": start, "duration": duration}
        kept: dict[str, Any] = dict(usable({name: value for name, value in columns.items() if value is not None}))
        return cls(image_wh=image_wh, **kept, **named).outside(outside)

    @classmethod
    def from_points(cls, points_xy: ArrayLike, image_wh: tuple[int, int], **named: Any) -> Scanpath:
        """From (n, 2) x, y; ``named`` are the other attributes."""
        points = np.asarray(points_xy, dtype=np.float64)
        points = points.reshape(0, 2) if points.size == 0 else points
        if points.ndim != 2 or points.shape[1] != 2:
            raise SpecError(f"points_xy must have shape (n, 2), got {points.shape}")
        return cls(points[:, 0], points[:, 1], image_wh, **named)

    @property
    def xy(self) -> Array:
        """(n, 2) x, y."""
        return np.column_stack([self.x, self.y])

    @property
    def pixels(self) -> NDArray[np.int64]:
        """(n, 2) column and row of the pixel of each fixation, counted from 0; may lie off the picture."""
        return np.floor(self.xy).astype(np.int64)

    def on_image(self) -> NDArray[np.bool_]:
        """(n,) whether each fixation lies on the picture: 0 <= x < width, 0 <= y < height."""
        return inside(self.x, self.y, self.image_wh)

    def outside(self, rule: Outside) -> Scanpath:
        """The scanpath with fixations off the picture kept (``keep``), left out (``drop``) or moved to the nearest
        point of the picture (``clip``).

        Raises:
            SpecError: another rule.
        """
        if rule not in ("keep", "drop", "clip"):
            raise SpecError(f"outside must be 'keep', 'drop' or 'clip', got {rule!r}")
        on = self.on_image()
        if rule == "keep" or on.all():
            return self
        if rule == "drop":
            return self.take(on)
        x, y = clip_to(self.x, self.y, self.image_wh)
        return replace(self, x=x, y=y)

    def take(self, which: ArrayLike | slice) -> Scanpath:
        """The fixations that a mask, a slice or increasing indices name."""
        index = which if isinstance(which, slice) else np.asarray(which)
        if not isinstance(index, slice) and index.size == 0:
            index = np.zeros(0, dtype=np.int64)
        told: dict[str, Any] = {
            name: None if (held := getattr(self, name)) is None else held[index] for name in ("start", "duration")
        }
        return replace(self, x=self.x[index], y=self.y[index], **told)

    def scaled_to(self, image_wh: tuple[int, int]) -> Scanpath:
        """The same fixations on the picture resized to ``image_wh``.

        The screen is scaled by the mean of both ratios, which is exact where they agree, and forgotten where they
        differ by more than 1 %.
        """
        wh = check_wh(image_wh)
        across, down = wh[0] / self.image_wh[0], wh[1] / self.image_wh[1]
        alike = abs(across / down - 1) <= 0.01
        screen = self.screen.scaled((across + down) / 2) if self.screen is not None and alike else None
        return replace(self, x=self.x * across, y=self.y * down, image_wh=wh, screen=screen)

    def to_dict(self) -> dict[str, Any]:
        """In plain values, for JSON."""
        told: dict[str, Any] = {"x": self.x.tolist(), "y": self.y.tolist(), "image_wh": list(self.image_wh)}
        for name in ("start", "duration"):
            if (held := getattr(self, name)) is not None:
                told[name] = held.tolist()
        told |= {n: v for n in ("subject", "task", "image") if (v := getattr(self, n)) is not None}
        if self.screen is not None:
            s = self.screen
            told["screen"] = {
                "pixels_per_degree": s.pixels_per_degree,
                "distance_px": s.distance_px,
                "centre_xy": s.centre_xy,
            }
        return told | ({"trial": dict(self.trial)} if self.trial else {})

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Scanpath:
        """The inverse of :meth:`to_dict`.

        Raises:
            SpecError: a field is missing, unknown or wrong.
        """
        fields = set(cls.__dataclass_fields__)
        if not isinstance(told, Mapping) or not {"x", "y", "image_wh"} <= set(told) <= fields:
            keys = sorted(told) if isinstance(told, Mapping) else type(told).__name__
            raise SpecError(f"a scanpath must have x, y, image_wh and nothing but {sorted(fields)}, got {keys}")
        held = dict(told)
        try:
            if held.get("screen") is not None:
                centre = held["screen"].get("centre_xy")
                held["screen"] = Screen(**{**held["screen"], "centre_xy": None if centre is None else tuple(centre)})
            return cls(**held)
        except (TypeError, AttributeError) as error:
            raise SpecError(f"a scanpath's fields cannot be read: {error}") from error

    def __len__(self) -> int:
        return len(self.x)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scanpath):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((len(self), self.image, self.subject, self.task))

    def __repr__(self) -> str:
        told = "".join(f", {n}={v!r}" for n in ("image", "subject", "task") if (v := getattr(self, n)) is not None)
        return f"Scanpath({len(self)} fixations on {self.image_wh[0]}x{self.image_wh[1]}{told})"


@dataclass(frozen=True)
class Fixations(Tabular):
    """Scanpaths of many subjects on many pictures.

    ``len`` and iteration go over scanpaths; :attr:`count` is the number of fixations.

    Attributes:
        scanpaths: in the order they came.

    Raises:
        SpecError: an entry that is no :class:`Scanpath`, or one picture with two sizes.

    Example:
        >>> two = Fixations([Scanpath([5.0], [5.0], (10, 10), image=i, subject="s1") for i in ("a", "b")])
        >>> len(two), two.count, list(two.by_image()), two.select(image="a").points("a").tolist()
        (2, 2, ['a', 'b'], [[5.0, 5.0]])
    """

    scanpaths: tuple[Scanpath, ...] = ()

    def __post_init__(self) -> None:
        paths = tuple(self.scanpaths)
        sizes: dict[str, tuple[int, int]] = {}
        for number, path in enumerate(paths):
            if not isinstance(path, Scanpath):
                raise SpecError(f"scanpaths must be Scanpath objects, number {number} is {type(path).__name__}")
            if path.image is not None and sizes.setdefault(path.image, path.image_wh) != path.image_wh:
                raise SpecError(f"the picture {path.image!r} has two sizes: {sizes[path.image]} and {path.image_wh}")
        object.__setattr__(self, "scanpaths", paths)

    @property
    def count(self) -> int:
        """Number of fixations."""
        return sum(map(len, self.scanpaths))

    @property
    def images(self) -> tuple[str | None, ...]:
        """Each picture once, in the order of appearance."""
        return tuple(dict.fromkeys(p.image for p in self.scanpaths))

    @property
    def subjects(self) -> tuple[str | None, ...]:
        """Each subject once, in the order of appearance."""
        return tuple(dict.fromkeys(p.subject for p in self.scanpaths))

    @property
    def tasks(self) -> tuple[str | None, ...]:
        """Each task once, in the order of appearance."""
        return tuple(dict.fromkeys(p.task for p in self.scanpaths))

    def by_image(self) -> dict[str | None, Fixations]:
        """The scanpaths of each picture."""
        return self.by(lambda path: path.image)

    def by_subject(self) -> dict[str | None, Fixations]:
        """The scanpaths of each subject."""
        return self.by(lambda path: path.subject)

    def by_task(self) -> dict[str | None, Fixations]:
        """The scanpaths of each task."""
        return self.by(lambda path: path.task)

    def by(self, key: Callable[[Scanpath], Hashable]) -> dict[Any, Fixations]:
        """The scanpaths of each value of ``key``, in the order of appearance."""
        groups: dict[Hashable, list[Scanpath]] = {}
        for path in self.scanpaths:
            groups.setdefault(key(path), []).append(path)
        return {name: Fixations(tuple(paths)) for name, paths in groups.items()}

    def select(self, where: Callable[[Scanpath], bool] | None = None, **equal: Any) -> Fixations:
        """The scanpaths for which ``where`` holds and whose attributes or trial facts have the values in ``equal``; a
        set or list as value stands for any of its members.

        Raises:
            SpecError: an attribute or trial fact that no scanpath has.
        """
        for name in equal:
            if name not in Scanpath.__dataclass_fields__ and not any(name in p.trial for p in self.scanpaths):
                raise SpecError(f"no scanpath has an attribute or trial fact {name!r}")
        wanted = {n: v if isinstance(v, (set, frozenset, list)) else [v] for n, v in equal.items()}
        return Fixations(
            tuple(
                p
                for p in self.scanpaths
                if (where is None or where(p)) and all(_fact(p, n) in v for n, v in wanted.items())
            )
        )

    def outside(self, rule: Literal["keep", "drop", "clip"]) -> Fixations:
        """:meth:`Scanpath.outside` of each."""
        return Fixations(tuple(p.outside(rule) for p in self.scanpaths))

    def scaled_to(self, image_wh: tuple[int, int]) -> Fixations:
        """:meth:`Scanpath.scaled_to` of each."""
        return Fixations(tuple(p.scaled_to(image_wh) for p in self.scanpaths))

    def points(self, image: str | None = None) -> Array:
        """(n, 2) x, y of all fixations on a picture, or of all there are."""
        parts = [p.xy for p in self.scanpaths if image is None or p.image == image]
        return np.concatenate(parts) if parts else np.zeros((0, 2))

    def __add__(self, other: Fixations) -> Fixations:
        return Fixations((*self.scanpaths, *other.scanpaths)) if isinstance(other, Fixations) else NotImplemented

    @classmethod
    def concatenate(cls, parts: Iterable[Fixations]) -> Fixations:
        """All scanpaths of several sets, in order."""
        return cls(tuple(path for part in parts for path in part))

    def to_columns(self) -> dict[str, list[Any]]:
        """One row per fixation, in columns that ``pandas.DataFrame`` takes: ``scanpath`` (number), ``image``,
        ``subject``, ``task``, ``width``, ``height``, ``pixels_per_degree``, ``index``, ``x``, ``y``, ``start``,
        ``duration``. What is not known is None. Empty scanpaths, trial facts and the eye's distance have no row:
        :meth:`Scanpath.to_dict` keeps them."""
        return table(self.scanpaths)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], *, image_wh: tuple[int, int] | None = None) -> Fixations:
        """The inverse of :meth:`to_columns`; anything that has columns by name will do, as a data frame.

        Rows belong to one scanpath that agree in ``scanpath``, or without it in ``image``, ``subject`` and ``task``,
        and keep their order. ``image_wh`` is for columns without ``width`` and ``height``.

        Raises:
            SpecError: no x or y, columns of different length, no size of the picture, or a scanpath that is wrong.
        """
        return cls(tuple(Scanpath(**row) for row in rows_of_columns(columns, image_wh)))

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per fixation; see :meth:`to_columns`."""
        return rows_of(self.to_columns())

    def _repr_html_(self) -> str:
        rows = [
            {
                "image": p.image,
                "subject": p.subject,
                "task": p.task,
                "fixations": len(p),
                "size": f"{p.image_wh[0]} x {p.image_wh[1]}",
            }
            for p in self.scanpaths
        ]
        return panel(repr(self), html_table(*columns_of(rows)))

    def __len__(self) -> int:
        return len(self.scanpaths)

    def __iter__(self) -> Iterator[Scanpath]:
        return iter(self.scanpaths)

    @overload
    def __getitem__(self, which: int) -> Scanpath: ...
    @overload
    def __getitem__(self, which: slice) -> Fixations: ...
    def __getitem__(self, which: int | slice) -> Scanpath | Fixations:
        return Fixations(self.scanpaths[which]) if isinstance(which, slice) else self.scanpaths[which]

    def __repr__(self) -> str:
        return (
            f"Fixations({self.count} fixations, {len(self)} scanpaths, {len(self.images)} pictures, "
            f"{len(self.subjects)} subjects)"
        )


def _fact(path: Scanpath, name: str) -> Any:
    return getattr(path, name) if name in Scanpath.__dataclass_fields__ else path.trial.get(name)
