"""Results that are rows: a table in a notebook, plain dicts, a data frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

from vlmattn.core.errors import SpecError
from vlmattn.core.optional import require
from vlmattn.display.html import MOST_ROWS, facts, html_table, panel, plain, preformatted
from vlmattn.display.plain import plain_table

Row = TypeVar("Row")


class Tabular:
    """A result that is a table: one dict per row."""

    @abstractmethod
    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict of plain values per row; None for what is not known."""

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, one line per row; dicts inside a row become columns such as ``shares.question``.

        Raises:
            DependencyMissing: pandas is not installed.
        """
        return data_frame(self.to_dicts())


class Rows(list[Row], Tabular):
    """A list that is a table in a notebook.

    Args:
        items: dicts, dataclasses, named tuples, or objects with ``to_dict``. show: what the notebook's table has of an
            item, by column; default: all of it. title, note: above and below.

    Example:
        >>> from typing import NamedTuple
        >>> class Head(NamedTuple):
        ...     layer: int
        ...     head: int
        >>> Rows([Head(0, 3)]).to_dicts()
        [{'layer': 0, 'head': 3}]
    """

    def __init__(
        self,
        items: Iterable[Row] = (),
        show: Callable[[Row], Mapping[str, Any]] | None = None,
        *,
        title: str = "",
        note: str = "",
    ) -> None:
        super().__init__(items)
        self.show, self.title, self.note = show, title, note

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict of plain values per row; None for what is not known.

        Raises:
            SpecError: an item that has no fields.
        """
        return [_fields(item) for item in self]

    def _shown(self) -> tuple[list[str], list[list[Any]]]:
        shown = [dict(self.show(item)) for item in self] if self.show is not None else self.to_dicts()
        return columns_of(shown)

    def _repr_html_(self) -> str:
        body = html_table(*self._shown())
        return panel(self.title or f"{len(self):,} row{'' if len(self) == 1 else 's'}", body, note=self.note)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        if not self:
            printer.text("[]")
            return
        head, rows = self._shown()
        more = [f"… and {len(rows) - MOST_ROWS:,} more rows"] if len(rows) > MOST_ROWS else []
        cells = [[plain(one) for one in row] for row in rows[:MOST_ROWS]]
        printer.text("\n".join([plain_table(head, cells), *more, *([self.note] if self.note else [])]))


class Facts(dict[str, Any]):
    """A dict that is a table of names and values in a notebook."""

    def _repr_html_(self) -> str:
        return panel("", facts(self))


class Told:
    """A result whose ``str`` is worth reading: a notebook shows it as a terminal does."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # IPython asks a class for its own before any base's, and a dataclass has a repr of its own.
        cls._repr_pretty_ = Told._repr_pretty_  # type: ignore[method-assign]

    def _repr_html_(self) -> str:
        return panel("", preformatted(self))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Head and lines of a table of rows; None where a row lacks a column."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[row.get(name) for name in names] for row in rows]


def rows_of(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """One dict per row of columns of one length."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def data_frame(rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]) -> Any:
    """A ``pandas.DataFrame`` of rows, or of columns by name; dicts inside a row are spread over columns.

    Raises:
        DependencyMissing: pandas is not installed.
    """
    pandas = require("pandas", extra="notebook")
    if isinstance(rows, Mapping):
        return pandas.DataFrame(dict(rows))
    return pandas.DataFrame([_spread(row) for row in rows])


def _spread(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= _spread(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = value
    return flat


def _fields(item: Any) -> dict[str, Any]:
    if hasattr(item, "to_dict"):
        return dict(item.to_dict())
    if hasattr(item, "_asdict"):
        return dict(item._asdict())
    if is_dataclass(item) and not isinstance(item, type):
        return asdict(item)
    if isinstance(item, Mapping):
        return dict(item)
    raise SpecError(f"a row must be a dict, a dataclass or have to_dict, got {type(item).__name__}")
