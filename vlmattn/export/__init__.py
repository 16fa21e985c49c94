"""Maps for other programs: figures, animations, annotations, tables, and traces that load back equal."""

from __future__ import annotations

from vlmattn.export.animation import ANIMATION_ENDINGS, Animation, animate
from vlmattn.export.coco import read_coco, save_coco, to_coco
from vlmattn.export.cvat import save_cvat, to_cvat
from vlmattn.export.fiftyone import save_fiftyone, to_fiftyone
from vlmattn.export.figures import COLUMN_WIDTHS, FIGURE_ENDINGS, PaperFigure, figure
from vlmattn.export.label_studio import (
    decoded_brush,
    encoded_brush,
    labelling_config,
    save_label_studio,
    to_label_studio,
)
from vlmattn.export.regions import Marked, MarkedRegion, RegionRule, mark
from vlmattn.export.subject import Mapped, Written
from vlmattn.export.supervision import from_supervision, to_supervision
from vlmattn.export.tables import load_table, map_table, save_table, word_table
from vlmattn.export.traces import SavedTrace, load_trace, save_trace

__all__ = [
    "ANIMATION_ENDINGS",
    "COLUMN_WIDTHS",
    "FIGURE_ENDINGS",
    "Animation",
    "Mapped",
    "Marked",
    "MarkedRegion",
    "PaperFigure",
    "RegionRule",
    "SavedTrace",
    "Written",
    "animate",
    "decoded_brush",
    "encoded_brush",
    "figure",
    "from_supervision",
    "labelling_config",
    "load_table",
    "load_trace",
    "map_table",
    "mark",
    "read_coco",
    "save_coco",
    "save_cvat",
    "save_fiftyone",
    "save_label_studio",
    "save_table",
    "save_trace",
    "to_coco",
    "to_cvat",
    "to_fiftyone",
    "to_label_studio",
    "to_supervision",
    "word_table",
]
