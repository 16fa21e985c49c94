"""Gaze data in the formats that it is published in, one module each; all give :class:`~vlmattn.gaze.Fixations`."""

from __future__ import annotations

from vlmattn.gaze.readers.air import read_air
from vlmattn.gaze.readers.bids import read_bids, read_bids_samples
from vlmattn.gaze.readers.capmit1003 import read_capmit1003
from vlmattn.gaze.readers.coco import read_coco_freeview, read_coco_search18
from vlmattn.gaze.readers.eyelink import read_eyelink, read_eyelink_samples
from vlmattn.gaze.readers.frames import from_pymovements
from vlmattn.gaze.readers.human_maps import read_human_map, read_vqa_hat, read_vqa_mhug_maps
from vlmattn.gaze.readers.mit1003 import read_mit1003
from vlmattn.gaze.readers.neutral import read_fixations, write_fixations
from vlmattn.gaze.readers.osie import read_osie
from vlmattn.gaze.readers.pysaliency import from_pysaliency
from vlmattn.gaze.readers.refcoco_gaze import read_refcoco_gaze
from vlmattn.gaze.readers.salicon import read_salicon, read_salicon_mat
from vlmattn.gaze.readers.tables import from_frame, read_table

__all__ = [
    "from_frame",
    "from_pymovements",
    "from_pysaliency",
    "read_air",
    "read_bids",
    "read_bids_samples",
    "read_capmit1003",
    "read_coco_freeview",
    "read_coco_search18",
    "read_eyelink",
    "read_eyelink_samples",
    "read_fixations",
    "read_human_map",
    "read_mit1003",
    "read_osie",
    "read_refcoco_gaze",
    "read_salicon",
    "read_salicon_mat",
    "read_table",
    "read_vqa_hat",
    "read_vqa_mhug_maps",
    "write_fixations",
]
