"""A search goes over one of several pictures and leaves the others as they are."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

import vlmattn as va
from tests.tiny_models import tiny


@pytest.mark.parametrize("image", [0, 1])
def test_parts_are_of_the_picture_that_is_searched(image: int) -> None:
    vlm, pictures = va.load(*tiny("llava")), [data.coffee()[:200], data.chelsea()]
    run = vlm.ask(pictures, "Which is red?", max_new_tokens=2, suppress_tokens=[vlm.adapter.image_token_id])
    found = run.search("vstar", image=image, enough=1.0, most_looks=3)
    assert found.path.looks == 3
    for visit in found.path.visits[1:]:
        x0, y0, x1, y1 = visit.box_xyxy
        shown = [np.asarray(seen.image) for seen in visit.seen.held.pictures]
        assert (shown[image] == pictures[image][y0:y1, x0:x1]).all()
        assert (shown[1 - image] == pictures[1 - image]).all()
        assert visit.seen.cue is None or visit.seen.cue.image_wh == (x1 - x0, y1 - y0)
