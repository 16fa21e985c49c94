"""A model's look beside people's: every number against a plain computation, killed runs, files, refusals."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.images import Picture
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.evaluate.gaze import (
    GazeCase,
    Looked,
    Measuring,
    compare_gaze,
    read_cases,
    scene_cases,
    summarise,
)
from vlmattn.evaluate.gaze.measuring import CaseResult, CaseRow
from vlmattn.gaze import Fixations, Scanpath, centre_map, fixation_density, nss, write_fixations
from vlmattn.gaze.models import Inhibition, winner_take_all
from vlmattn.gaze.scanpaths import compare
from vlmattn.grid import PatchMap

WH = (64, 48)
NSS, SCANMATCH, MULTI = "nss[pysaliency]", "scanmatch[matlab, 16x12, T 3.5]", "multimatch[ties=diagonal]"
HOW = Measuring((NSS, "auc[uniform]", "sauc[exact]"), (SCANMATCH, MULTI), draws=2)


def patch_map(row: int, column: int) -> PatchMap:
    values = np.zeros((6, 8))
    values[row, column] = 1.0
    values += np.linspace(0, 0.1, 48).reshape(6, 8)
    return PatchMap((values,), ImageLayout(WH, (Tile("base", (6, 8), (0.0, 0.0, 64.0, 48.0)),)))


class Fake:
    """Looks where the question says, layer 1 elsewhere."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def settings(self) -> dict[str, Any]:
        return {"model": "fake"}

    def look(self, picture: Picture, question: str, word: str | None, *, whole: bool = True) -> Looked:
        self.asked.append(question)
        row, column = (int(v) for v in question.split())
        maps = {"model": patch_map(row, column)}
        if whole:
            maps |= {"model, layer 0": patch_map(row, column), "model, layer 1": patch_map(5 - row, 7 - column)}
        return Looked(maps, {}, {"answer": "so"})


class Small(Fake):
    """On the picture at half its size."""

    def look(self, picture: Picture, question: str, word: str | None, *, whole: bool = True) -> Looked:
        told = super().look(picture, question, word, whole=whole)
        layout = ImageLayout((32, 24), (Tile("base", (6, 8), (0.0, 0.0, 32.0, 24.0)),))
        return Looked({name: PatchMap(one.values, layout) for name, one in told.maps.items()}, {}, {})


def path(points: list[tuple[float, float]], image: str, subject: str) -> Scanpath:
    return Scanpath.from_points(points, WH, image=image, subject=subject, task="look", duration=[0.2] * len(points))


def cases() -> list[GazeCase]:
    rng = np.random.default_rng(0)
    found = []
    for n, (row, column) in enumerate([(1, 1), (4, 6), (2, 5)]):
        near = (column * 8 + 4, row * 8 + 4)
        people = Fixations(tuple(
            path([(32.0, 24.0), *(np.clip(near + rng.normal(0, 4, (3, 2)), 1, [62, 46]))], f"p{n}", s) for s in "abc"
        ))  # fmt: skip
        picture = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        found.append(GazeCase(f"p{n}", picture, f"{row} {column}", "look", people, wrong="5 0"))
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compare_gaze(cases(), Fake(), tmp_path_factory.mktemp("gaze"), how=HOW, sheets=1, draws=200)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def rows_of(result: CaseResult) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    return {(row.kind, row.source): {s: dict(v) for s, v in row.values.items()} for row in result.rows}


def test_maps_are_measured_at_each_subjects_fixations(done: Any) -> None:
    from vlmattn.gaze.models.attention import values_of_map

    case = cases()[0]
    held = rows_of(done.results[0])
    for one in case.people:
        expected = {"model": values_of_map(patch_map(1, 1)), "centre": centre_map(WH)}
        rest = Fixations(tuple(p for p in case.people if p.subject != one.subject))
        density = fixation_density(rest, WH, sigma=0.035 * 64)
        expected["people"] = 0.99 * density + 0.01 / density.size
        for source, values in expected.items():
            assert held["map", source][str(one.subject)][NSS] == pytest.approx(nss(values, one), abs=1e-12)


def test_scanpaths_are_measured_against_each_subjects(done: Any) -> None:
    from vlmattn.gaze.models.attention import values_of_map

    case = cases()[0]
    held = rows_of(done.results[0])
    radius = Inhibition(2.5 * 0.035 * 64)
    model = winner_take_all(values_of_map(patch_map(1, 1)), count=4, inhibition=radius)
    for one in case.people:
        mine = held["scanpath", "model, winner-take-all"][str(one.subject)]
        told = compare(one, model, [SCANMATCH, MULTI])
        for name, value in told.items():
            if name.endswith(".duration"):
                assert name not in mine
            else:
                assert mine[name] == pytest.approx(value, abs=1e-12)
        rest = [p for p in case.people if p.subject != one.subject]
        among = np.mean([compare(one, other, [SCANMATCH])[SCANMATCH] for other in rest])
        assert held["scanpath", "people"][str(one.subject)][SCANMATCH] == pytest.approx(among, abs=1e-12)
        density = fixation_density(Fixations(tuple(rest)), WH, sigma=0.035 * 64)
        gold = winner_take_all(density, count=4, inhibition=radius)
        value = compare(one, gold, [SCANMATCH])[SCANMATCH]
        assert held["scanpath", "people's map"][str(one.subject)][SCANMATCH] == pytest.approx(value, abs=1e-12)


def test_the_wrong_question_is_asked_and_is_worse(done: Any) -> None:
    summary = done.summary
    right, wrong = (summary.of("map", s, NSS).value.value for s in ("model", "model, wrong question"))
    assert right > 1 > wrong + 0.5
    row = summary.of("map", "people", NSS)
    assert row.of_ceiling.value == pytest.approx(1.0)
    assert summary.of("map", "uniform", NSS).of_ceiling.value == pytest.approx(0.0)
    share = summary.of("map", "model", NSS)
    assert share.of_ceiling.value == pytest.approx(share.value.value / row.value.value)  # the chance of NSS is 0
    model, ceiling = (summary.of("map", source, "auc[uniform]") for source in ("model", "people"))
    expected = (model.value.value - 0.5) / (ceiling.value.value - 0.5)
    assert model.of_ceiling.value == pytest.approx(expected)
    one, floor, top = (
        summary.of("scanpath", s, SCANMATCH).value.value for s in ("model, winner-take-all", "random places", "people")
    )
    share = summary.of("scanpath", "model, winner-take-all", SCANMATCH)
    assert share.of_ceiling.value == pytest.approx((one - floor) / (top - floor))


def test_the_depth_that_is_most_like_people_is_found(done: Any) -> None:
    depth = next(d for d in done.summary.depths if (d.kind, d.metric) == ("map", NSS))
    assert (depth.best, depth.layers) == ("model, layer 0", ("model, layer 0", "model, layer 1"))
    assert depth.sureness == 1.0
    assert depth.means[0] == pytest.approx(done.summary.of("map", "model, layer 0", NSS).value.value)


def test_the_files_hold_every_row(done: Any) -> None:
    rows = table(done.folder / "rows.csv")
    some = [r for r in rows if (r["image"], r["subject"], r["source"], r["metric"]) == ("p1", "b", "model", NSS)]
    assert [float(r["value"]) for r in some] == [rows_of(done.results[1])["map", "model"]["b"][NSS]]
    assert {r["synthetic"] for r in rows} == {"0"}
    told = json.loads((done.folder / "result.json").read_text())
    assert told["settings"]["model"] == "fake"
    assert "warning" not in told
    page = (done.folder / "report.md").read_text()
    assert "| people |" in page
    assert "SYNTHETIC" not in page
    summary = table(done.folder / "summary.csv")
    assert len(summary) == len(done.summary.rows)
    assert len(list((done.folder / "sheets").glob("*.png"))) == 1


def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    class Killed(Fake):
        def look(self, *args: Any, **options: Any) -> Looked:
            if len(self.asked) == 3:
                raise KeyboardInterrupt
            return super().look(*args, **options)

    with pytest.raises(KeyboardInterrupt):
        compare_gaze(cases(), Killed(), tmp_path, how=HOW, sheets=0, draws=100)
    again = Fake()
    second = compare_gaze(cases(), again, tmp_path, how=HOW, sheets=0, draws=100)
    assert again.asked == ["4 6", "5 0", "2 5", "5 0"]
    whole = compare_gaze(cases(), Fake(), tmp_path / "whole", how=HOW, sheets=0, draws=100)
    assert (tmp_path / "rows.csv").read_text() == (tmp_path / "whole" / "rows.csv").read_text()
    assert second.summary == whole.summary
    with pytest.raises(SpecError, match="another run"):
        compare_gaze(cases()[:2], Fake(), tmp_path, how=HOW, draws=100)
    damaged = next((tmp_path / "cases").glob("*.json"))
    damaged.write_text("{")
    with pytest.raises(FileError, match="damaged"):
        compare_gaze(cases(), Fake(), tmp_path, how=HOW, sheets=0, draws=100)


def test_a_first_fixation_in_the_middle_does_not_count(tmp_path: Path) -> None:
    from vlmattn.gaze.models.attention import values_of_map

    how = Measuring((NSS,), (SCANMATCH,), draws=1, begins="centre")
    found = compare_gaze(cases(), Fake(), tmp_path, how=how, sheets=0, draws=100)
    one = cases()[0].people[0]
    value = rows_of(found.results[0])["map", "model"]["a"][NSS]
    assert value == pytest.approx(nss(values_of_map(patch_map(1, 1)), one.take(slice(1, None))), abs=1e-12)
    kept = rows_of(found.results[0])["scanpath", "random places"]["a"][SCANMATCH]
    assert kept > 0.2  # the first of four is the same by construction


def test_one_subject_has_no_ceiling(tmp_path: Path) -> None:
    alone = [GazeCase(c.image, c.picture, c.question, c.task, c.people[:1]) for c in cases()]
    found = compare_gaze(alone, Fake(), tmp_path, how=HOW, sheets=0, draws=100)
    sources = {row.source for row in found.summary.rows}
    assert "people" not in sources
    assert found.summary.of("map", "model", NSS).of_ceiling is None


def test_search_is_measured_where_there_is_a_target(tmp_path: Path) -> None:
    from dataclasses import replace

    from vlmattn.evaluate.gaze import saccades_to_target

    box = (0.0, 0.0, 20.0, 20.0)
    some = [replace(case, target_box_xyxy=box) for case in cases()[:1]]
    found = compare_gaze(some, Fake(), tmp_path, how=HOW, sheets=0, draws=100)
    held = rows_of(found.results[0])
    needed = saccades_to_target(list(some[0].people), [box] * 3, 6)
    told = [held["search", "people"][s]["saccades to the target"] for s in "abc"]
    assert told == needed.tolist()
    model = held["search", "model, winner-take-all"]["all"]
    assert model == {"found within 6 saccades": 1.0, "saccades to the target": 0.0}
    wrong = held["search", "model, layer 1, winner-take-all"]["all"]
    assert wrong["found within 6 saccades"] < 1
    assert "## Search" in (tmp_path / "report.md").read_text()
    assert not any(row.kind == "search" for row in compare_gaze(
        cases()[:1], Fake(), tmp_path / "none", how=HOW, sheets=0, draws=100
    ).summary.rows)  # fmt: skip


def test_intervals_draw_pictures_not_cases() -> None:
    def result(image: str, case: str, value: float) -> CaseResult:
        rows = tuple(CaseRow("map", source, {"s": {NSS: v}}) for source, v in (("model", value), ("people", 2.0)))
        return CaseResult(case, image, None, "?", ("s",), rows, {})

    twice = [result("a", "a1", 1.0), result("a", "a2", 1.0), result("b", "b1", 0.0)]
    row = summarise(twice, synthetic=False, draws=500).of("map", "model", NSS)
    assert row.value.value == pytest.approx(2 / 3)
    assert row.value.clusters == 2
    assert (row.value.low, row.value.high) == (0.0, 1.0)
    assert row.of_ceiling is not None
    assert row.of_ceiling.value == pytest.approx(1 / 3)


def test_cases_come_from_a_folder_a_table_and_scanpaths(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", WH).save(tmp_path / name)
    looked = Fixations((path([(1.0, 1.0)], "a.png", "s"), path([(1.0, 1.0)], "b", "s")))
    table = tmp_path / "questions.csv"
    table.write_text("image,caption,task,x0,y0,x1,y1\na,what is it?,look,1,2,3,4\nb.jpg,and this?,,,,,\n")
    found = read_cases(tmp_path, looked, table)
    assert [(c.image, c.question, c.target_box_xyxy, c.wrong) for c in found] == [
        ("a.png", "what is it?", (1.0, 2.0, 3.0, 4.0), "and this?"),
        ("b", "and this?", None, "what is it?"),
    ]
    plain = read_cases(tmp_path, looked)
    assert {c.question for c in plain} == {"What is in the picture?"}
    assert {c.wrong for c in plain} == {None}
    with pytest.raises(FileError, match="not in"):
        read_cases(tmp_path, Fixations((path([(1.0, 1.0)], "c", "s"),)))
    with pytest.raises(FileError, match="no folder"):
        read_cases(tmp_path / "none", looked)
    with pytest.raises(SpecError, match="no picture"):
        read_cases(tmp_path, Fixations((path([(1.0, 1.0)], "z", "s"),)), table)
    table.write_text("image,caption,x0\na,what?,1\n")
    with pytest.raises(FileError, match="row 1: a box"):
        read_cases(tmp_path, looked, table)
    table.write_text("image,words\na,what?\n")
    with pytest.raises(FileError, match="row 1 needs"):
        read_cases(tmp_path, looked, table)


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    case = cases()[0]
    other = GazeCase(case.image, Image.new("RGB", (32, 24)), case.question, case.task, case.people)
    with pytest.raises(SpecError, match="on \\(64, 48\\) pixels"):
        compare_gaze([other], Fake(), tmp_path, how=HOW)
    how = Measuring((NSS,), (SCANMATCH,), draws=1, rescale=True)
    held = rows_of(compare_gaze([other], Small(), tmp_path / "a", how=how, sheets=0, draws=100).results[0])
    assert held["map", "model"]["a"][NSS] > 1
    with pytest.raises(SpecError, match="twice"):
        compare_gaze([case, case], Fake(), tmp_path / "b", how=HOW)
    with pytest.raises(SpecError, match="no case"):
        compare_gaze([], Fake(), tmp_path / "c", how=HOW)


@pytest.mark.parametrize(
    "wrong", [{"map_metrics": ("none",)}, {"scanpath_metrics": ("none",)}, {"draws": 0}, {"begins": "left"}]
)
def test_wrong_measuring_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        Measuring(**wrong)


def test_scenes_have_a_wrong_question_about_something_else() -> None:
    found = scene_cases(4, subjects=2)
    assert all(case.wrong and case.wrong != case.question for case in found)
    assert all(path.trial["synthetic"] for case in found for path in case.people)
    assert all(case.task is None for case in scene_cases(2, subjects=2, task="free"))
    with pytest.raises(SpecError, match="search"):
        scene_cases(1, task="sleep")
    with pytest.raises(SpecError, match="1 scene"):
        scene_cases(0)


def test_the_command_runs_offline_and_says_synthetic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vlmattn.cli.main import main

    out = tmp_path / "out"
    asked = ["gaze", "compare", "--synthetic", "2", "--subjects", "2", "-o", str(out), "--sheets", "1",
             "--draws", "100", "--metric", NSS, "--metric", SCANMATCH]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(asked)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "SYNTHETIC" in shown
    assert "model, layer 3" in shown
    assert "SYNTHETIC" in (out / "report.md").read_text()
    assert {r["synthetic"] for r in table(out / "rows.csv")} == {"1"}
    told = json.loads((out / "result.json").read_text())
    assert "warning" in told
    assert not any(math.isnan(r["value"]["value"]) for r in told["summary"]["rows"])
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["synthetic"] is True


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--synthetic", "2", "--gaze", "a.csv"], "takes no pictures"),
        ([], "give a folder"),
        (["--synthetic", "1", "--metric", "nothing"], "no measure"),
        (["--synthetic", "1", "--neva"], "needs --clip"),
        (["--synthetic", "1", "--clip", "scene-clip", "--layers", "1"], "not of --clip"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vlmattn.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["gaze", "compare", "-o", str(tmp_path / "o"), *given])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_the_command_reads_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vlmattn.cli.main import main
    from vlmattn.scene import make_scene

    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = []
    for n in range(2):
        scene = make_scene(n)
        scene.image.save(folder / f"{n}.png")
        points = [o.center_xy for o in scene.objects]
        paths += [Scanpath.from_points(points, scene.image_wh, image=f"{n}.png", subject=s) for s in "ab"]
    write_fixations(tmp_path / "looked.jsonl", Fixations(tuple(paths)))
    with pytest.raises(SystemExit) as ended:
        main(["gaze", "compare", str(folder), "--gaze", str(tmp_path / "looked.jsonl"), "-o", str(tmp_path / "o"),
              "--clip", "scene-clip", "--metric", NSS, "--metric", SCANMATCH, "--draws", "100", "-q"])  # fmt: skip
    assert ended.value.code == 0
    assert capsys.readouterr().out == ""
    told = json.loads((tmp_path / "o" / "result.json").read_text())
    assert told["settings"]["family"] == "open_clip"
