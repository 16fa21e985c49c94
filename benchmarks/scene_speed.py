"""How long the model in the box takes on one thread: ``python benchmarks/scene_speed.py``.

Median CPU time over 20 scenes of an answer to a question about colour, and of a caption, through ``vlm.ask`` with its
default capture, beside the same through plain ``generate``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import vlmattn as va
from vlmattn.scene import make_scene
from vlmattn.scene.answering import answers_of

QUESTIONS = {"answer": "How many objects are there?", "caption": "Describe the picture."}


def median_seconds(act: Callable[[Any], Any], scenes: int) -> float:
    """CPU seconds per picture; the first is not counted."""
    spent = []
    for seed in range(scenes + 1):
        image = make_scene(seed).image
        started = time.process_time()
        act(image)
        spent.append(time.process_time() - started)
    return float(np.median(spent[1:]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    vlm = va.load("scene")
    plain = answers_of(vlm.model, vlm.processor)
    for what, question in QUESTIONS.items():
        captured = median_seconds(lambda image, q=question: vlm.ask(image, q), given.scenes)
        alone = median_seconds(lambda image, q=question: plain([image], [q]), given.scenes)
        print(f"{what:8} {captured:.3f} s with capture, {alone:.3f} s plain")


if __name__ == "__main__":
    main()
