"""The comparison of a model's look with people's, picture by picture, into a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import make_folder, write_json
from vlmattn.core.images import load_image
from vlmattn.evaluate.gaze.cases import GazeCase, synthetic
from vlmattn.evaluate.gaze.lookers import Looker
from vlmattn.evaluate.gaze.measuring import CaseResult, CaseRow, Measuring, measure_case
from vlmattn.evaluate.gaze.sheets import case_sheet
from vlmattn.evaluate.gaze.summary import Summary, summarise
from vlmattn.evaluate.gaze.tables import plain, write_tables
from vlmattn.evaluate.manifest import Manifest, environment
from vlmattn.evaluate.store import locked
from vlmattn.gaze import Fixations

CASES, SHEETS = "cases", "sheets"
_USUAL = Measuring()


@dataclass(frozen=True)
class Compared:
    """A finished comparison. ``results``: of every case; ``summary``: over all; ``folder``: where all of it lies."""

    results: tuple[CaseResult, ...]
    summary: Summary
    folder: Path


def compare_gaze(
    cases: Sequence[GazeCase],
    looker: Looker,
    out: str | Path,
    *,
    how: Measuring = _USUAL,
    sheets: int = 8,
    draws: int = 2000,
    progress: Callable[[int, int], None] | None = None,
) -> Compared:
    """Compare where a model and where people look, and write what was found.

    Every case is written on its own as it is finished; the same call goes on where a killed one stopped. The folder
    gets ``result.json`` (settings, summary), ``rows.csv`` (each case, subject, source and measure), ``summary.csv``,
    ``report.md``, ``cases/`` and ``sheets/`` (the first cases drawn).

    Args:
        cases: see :func:`read_cases` and :func:`scene_cases`. looker: the model. sheets: how many cases are drawn.
            draws: of pictures, for intervals.

    Raises:
        SpecError: no case, two of one name, or a folder with other settings. FileError: what is there is damaged, or
            cannot be written. RunInProgress: another run is writing the folder.
    """
    keys = [case.key for case in cases]
    if not cases or len(set(keys)) < len(keys):
        twice = next((case.name for case in cases if keys.count(case.key) > 1), None)
        raise SpecError("there is no case to compare" if twice is None else f"the case {twice!r} is there twice")
    folder = make_folder(out)
    everybody = _everybody(cases)
    fake = synthetic(everybody)
    with locked(folder):
        made, before = _manifest(cases, looker, how, fake), Manifest.load(folder)
        (made if before is None else before.joined_by(made)).save(folder)
        make_folder(folder / CASES)
        results = []
        for number, case in enumerate(cases):
            results.append(_one(case, looker, everybody, how, folder, draw=number < sheets))
            if progress is not None:
                progress(number + 1, len(cases))
        summary = summarise(results, synthetic=fake, draws=draws, seed=how.seed)
        write_tables(folder, results, summary, {**looker.settings, **asdict(how)})
    return Compared(tuple(results), summary, folder)


def _everybody(cases: Sequence[GazeCase]) -> Fixations:
    """All scanpaths once, also where a picture's are in several cases."""
    held = {id(path): path for case in cases for path in case.people}
    return Fixations(tuple(held.values()))


def _manifest(cases: Sequence[GazeCase], looker: Looker, how: Measuring, fake: bool) -> Manifest:
    import hashlib

    digest = hashlib.sha256()
    for case in cases:
        digest.update(json.dumps([case.name, case.question, case.wrong, case.word]).encode())
        for path in case.people:
            digest.update(path.xy.tobytes())
    settings = {"cases": len(cases), "cases_sha256": digest.hexdigest(), "synthetic": fake}
    settings |= {"looker": looker.settings, "how": json.loads(json.dumps(asdict(how)))}
    return Manifest(json.loads(json.dumps(settings, default=str)), (environment(),))


def _one(
    case: GazeCase, looker: Looker, everybody: Fixations, how: Measuring, folder: Path, *, draw: bool
) -> CaseResult:
    """A case measured now, or read back."""
    path, picture_path = folder / CASES / f"{case.key}.json", folder / SHEETS / f"{case.key}.png"
    if path.is_file() and (not draw or picture_path.is_file()):
        return read_result(path)
    picture = load_image(case.picture)
    result, look, paths = measure_case(case, picture, looker, everybody, how)
    if draw:
        make_folder(folder / SHEETS)
        case_sheet(case, picture, look, paths).save(picture_path)
    write_json(path, plain(asdict(result)))
    return read_result(path)  # so that a run in one go and one in two give the same to the last byte


def read_result(path: str | Path) -> CaseResult:
    """A case that :func:`compare_gaze` wrote.

    Raises:
        FileError: missing or damaged.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = tuple(CaseRow(r["kind"], r["source"], _numbers(r["values"])) for r in held.pop("rows"))
        return CaseResult(**{**held, "subjects": tuple(held["subjects"])}, rows=rows)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileError(f"{path} is damaged ({error}): delete it and run the same command again") from error


def _numbers(values: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    return {s: {m: float("nan") if v is None else float(v) for m, v in one.items()} for s, one in values.items()}
