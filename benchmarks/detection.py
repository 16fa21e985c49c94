"""Which score tells made up words from others? Every score and detector, on the models in the box.

``python -m benchmarks.detection --scenes 100 --markdown docs/detection-study.md``. Descriptions and *yes* to questions
about presence, of ``scene`` and of ``scene-prior``, which leans on what usually goes together. Detectors are fitted on
scenes of seed 1 and measured on scenes of seed 0, at equal position in the answer and otherwise. With ``--cache
FOLDER`` finished parts are not run again. Your own model: ``vlmattn detect MODEL``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import vlmattn as va
from vlmattn.core.errors import SpecError
from vlmattn.core.files import atomic_write_text, make_folder
from vlmattn.evaluate import DetectionPlan, DetectionReport, detection_markdown, measure_detection

MODELS, TASKS = ("scene-prior", "scene"), ("captions", "presence")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--deletion", action="store_true", help="test every word by deletion, too: six passes each")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--save", type=Path, help="folder for the detector of each model")
    given = parser.parse_args()
    reports: list[DetectionReport] = []
    notes: list[str] = []
    for name in given.models:
        vlm = va.load(name)
        vlm.known_sinks()
        for task in given.tasks:
            plan = DetectionPlan(task, scenes=given.scenes, draws=given.draws, deletion=given.deletion)
            try:
                report, detector = measure_detection(vlm, plan, cache=given.cache)
            except SpecError as error:
                notes.append(f"`{name}`, {task}, is not measured: {error}.")
                print(notes[-1], flush=True)
                continue
            if given.save is not None:
                detector.save(make_folder(given.save) / f"{name}-{task}.safetensors")
            reports.append(report)
            print(f"{name}, {task}: {report.words} words, {report.hallucinated} made up", flush=True)
    command = f"python -m benchmarks.detection --scenes {given.scenes}{' --deletion' if given.deletion else ''}"
    page = detection_markdown(reports, command, notes=notes)
    if given.json:
        atomic_write_text(given.json, json.dumps([one.to_dict() for one in reports], indent=1) + "\n")
    if given.markdown:
        atomic_write_text(given.markdown, page)
    else:
        print(page)


if __name__ == "__main__":
    main()
