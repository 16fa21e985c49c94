"""For authors of adapters: prove a family with one call, in a test of your own package.

::

    from vlmattn.adapters.testing import check_adapter

    def test_my_family():
        report = check_adapter(tiny_model, processor, raises=False)
        assert report.ok, str(report)

``tiny_model`` may have random weights and a single layer: what is proved is where tokens lie, not what they say. Every
clause is measured on the model itself: its own counts of image tokens, the changes that painted spots make, batches
against their prompts alone. Vision layers, the size of a patch and how patches are merged must be the real model's.
"""

from __future__ import annotations

from vlmattn.adapters.contract import PAINTED, QUESTIONS, SIZES, Check, ContractReport, check_adapter
from vlmattn.adapters.paint import grey_picture
from vlmattn.adapters.paint_video import CLIPS, noise_video
from vlmattn.adapters.several import SIZES as SEVERAL

__all__ = [
    "CLIPS",
    "PAINTED",
    "QUESTIONS",
    "SEVERAL",
    "SIZES",
    "Check",
    "ContractReport",
    "check_adapter",
    "grey_picture",
    "noise_video",
]
