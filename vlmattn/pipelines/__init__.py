"""Tables of pictures and questions made tables of answers and folders of overlays, on one machine or a cluster."""

from __future__ import annotations

from vlmattn.pipelines.cluster import Cluster, overlay_table_on_cluster
from vlmattn.pipelines.job import Drawing, ModelChoice, OverlayJob, Reading
from vlmattn.pipelines.rows import Columns, Row, Table, open_table
from vlmattn.pipelines.run import Output, OverlaysDone, overlay_table

__all__ = [
    "Cluster",
    "Columns",
    "Drawing",
    "ModelChoice",
    "Output",
    "OverlayJob",
    "OverlaysDone",
    "Reading",
    "Row",
    "Table",
    "open_table",
    "overlay_table",
    "overlay_table_on_cluster",
]
