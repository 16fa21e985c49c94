"""A contact sheet of a run's maps."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

from vlmattn.api.checks import map_options
from vlmattn.api.whole import one_pass
from vlmattn.core.errors import MapError
from vlmattn.trace import Span

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.overlay import Sheet


def words_by_layers(run: Run, what: Any, layers: Any, options: dict[str, Any]) -> Sheet:
    """See :meth:`Run.sheet`."""
    from vlmattn.maps.choices import choose_layers
    from vlmattn.overlay import contact_sheet

    one = isinstance(what, (str, Integral, Span))
    words = [w for w in run.words() if any(c.isalnum() for c in w.text)]
    chosen = words if what is None else [what] if one else list(what)
    map_options(run.trace, None, "raw", {"layers": layers})
    depth, _ = choose_layers(run.trace, layers)
    if not chosen:
        raise MapError("the answer has no word to draw")
    with one_pass(run):
        rows = [[run.map(each, layers=[layer], **options) for layer in depth] for each in chosen]
    cells = [[(look.label, look.picture.image, look.pixels) for look in row] for row in rows]
    return contact_sheet(
        cells, row_titles=[row[0].label for row in rows], column_titles=[f"layer {layer}" for layer in depth]
    )
