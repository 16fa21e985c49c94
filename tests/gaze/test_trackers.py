"""Files of eye trackers and of other libraries."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vlmattn import gaze as vg
from vlmattn.core.errors import FileError, SpecError

ASC = """** CONVERTED FROM a.edf
MSG\t1000 DISPLAY_COORDS 0 0 1679 1049
MSG\t1001 TRIALID 1
START\t1010 \tLEFT\tSAMPLES\tEVENTS
SAMPLES\tGAZE\tLEFT\tRATE\t1000.00\tTRACKING\tCR\tFILTER\t2
MSG\t1015 !V IMGLOAD FILL street.jpg
MSG\t1020 SYNCTIME
SFIX L 1012
1012\t  840.0\t  525.0\t 1000.0\t...
1013\t  841.0\t  -5.5\t 1000.0\t...
1014\t   .\t   .\t    0.0\t...
EFIX L   1012\t1112\t100\t  840.0\t  525.0\t   1000
SSACC L  1112
ESACC L  1112\t1130\t18\t  .\t  .\t  300.0\t  -12.1\t 3.1\t 200
EFIX L   1130.5\t1330\t199.5\t  300.0\t  -12.1\t   1000
EBLINK L 1340\t1400\t60
END\t1500 \tSAMPLES\tEVENTS\tRES\t  26.31\t  26.07
MSG\t1501 TRIAL_RESULT 0
MSG\t1600 TRIALID 2
START\t1610 \tLEFT\tSAMPLES\tEVENTS
EFIX L   1612\t1712\t100\t  10.0\t  20.0\t   1000
END\t1800 \tSAMPLES\tEVENTS\tRES\t  26.31\t  26.07
MSG\t1801 !V TRIAL_VAR image house.jpg
"""


def asc(folder: Path, text: str = ASC) -> Path:
    (folder / "p7.asc").write_text(text, encoding="utf-8")
    return folder / "p7.asc"


def test_eyelink(tmp_path: Path) -> None:
    got = vg.read_eyelink(asc(tmp_path))
    assert [p.image for p in got] == ["street.jpg", "house.jpg"]
    assert got[0].image_wh == (1680, 1050)
    assert got[0].xy.tolist() == [[840, 525], [300, -12.1]]
    np.testing.assert_allclose(got[0].start, [0.002, 0.1205])
    assert got[0].duration.tolist() == [0.1, 0.1995]
    assert got[0].subject == "p7"
    assert "SYNCTIME" in got[0].trial["messages"]
    late = vg.read_eyelink(tmp_path / "p7.asc", onset_message="SYNCTIME", outside="drop", subject="s")
    np.testing.assert_allclose(late[0].start, [-0.008])
    assert late.subjects == ("s",)
    # The picture lay in a part of the screen, at twice its size.
    part = vg.read_eyelink(tmp_path / "p7.asc", box_xyxy=(240, 225, 1440, 825), image_wh=(600, 300))
    assert part[0].xy.tolist()[0] == [300, 150]


def test_a_picture_of_the_last_trial_is_not_that_of_the_next(tmp_path: Path) -> None:
    text = ASC.replace("MSG\t1015 !V IMGLOAD FILL street.jpg\n", "").replace(
        "RESULT 0", "RESULT 0\nMSG\t1502 !V TRIAL_VAR image a.jpg"
    )
    assert [p.image for p in vg.read_eyelink(asc(tmp_path, text))] == ["a.jpg", "house.jpg"]
    nameless = "\n".join(line for line in text.splitlines() if "TRIALID" not in line and "house" not in line)
    assert [p.image for p in vg.read_eyelink(asc(tmp_path, nameless))] == [None, "a.jpg"]


def test_eyelink_samples(tmp_path: Path) -> None:
    samples = vg.read_eyelink_samples(asc(tmp_path))
    assert [len(s) for s in samples] == [3, 0]
    np.testing.assert_allclose(samples[0].time, [0.002, 0.003, 0.004])
    assert samples[0].y[1] == -5.5
    assert np.isnan(samples[0].x[2])


def test_both_eyes(tmp_path: Path) -> None:
    text = ASC.replace("\tLEFT\t", "\tLEFT\tRIGHT\t").replace(
        "840.0\t  525.0\t 1000.0", "840.0\t  525.0\t 1000.0\t 850.0\t 530.0\t 900.0"
    ).replace("841.0\t  -5.5\t 1000.0", "841.0\t  -5.5\t 1000.0\t 851.0\t 531.0\t 900.0").replace(
        "   .\t   .\t    0.0", " .\t .\t 0.0\t .\t .\t 0.0"
    )  # fmt: skip
    text = text.replace("EBLINK L 1340", "EFIX R   1135\t1330\t195\t  310.0\t  15.0\t   1000\nEBLINK L 1340")
    file = asc(tmp_path, text)
    with pytest.raises(SpecError, match="both eyes"):
        vg.read_eyelink(file)
    assert vg.read_eyelink(file, eye="right")[0].xy.tolist() == [[310, 15]]
    assert vg.read_eyelink(file, eye="left")[0].x.tolist() == [840, 300]
    assert vg.read_eyelink_samples(file, eye="right")[0].x[:2].tolist() == [850, 851]
    assert vg.read_eyelink_samples(file, eye="left")[0].x[:2].tolist() == [840, 841]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (("", ""), {"eye": "right"}, "right eye was not recorded"),
        (("", ""), {"eye": "third"}, "'left' or 'right'"),
        (("", ""), {"image_message": "("}, "no regular expression"),
        (("", ""), {"box_xyxy": (5, 5, 5, 9)}, "positive width"),
        (("DISPLAY_COORDS", "NOTHING"), {}, "does not say the screen's size"),
        (("START", "BEGIN"), {}, "has no trial"),
        (("840.0\t  525.0\t   1000", "840.0"), {}, "line 12: expected a number as word 7"),
        (("EFIX L   1012", "EFIX X   1012"), {}, "line 12: EFIX must name the eye"),
        (("\t100\t  840.0\t", "\tlong\t  840.0\t"), {}, "line 12: expected a number"),
        (("1012\t1112\t100", "1412\t1512\t100"), {}, "trial at line 4: start must increase"),
        (("\t100\t  840.0\t", "\t0\t  840.0\t"), {}, "trial at line 4: duration must be above 0"),
    ],
)
def test_recordings_that_are_broken(tmp_path: Path, change: tuple, options: dict, message: str) -> None:
    with pytest.raises((FileError, SpecError), match=message):
        vg.read_eyelink(asc(tmp_path, ASC.replace(*change) if change[0] else ASC), **options)


def test_recordings_in_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "b.asc").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(FileError, match="cannot be read"):
        vg.read_eyelink(tmp_path / "b.asc")
    with pytest.raises(FileError, match="does not exist"):
        vg.read_eyelink(tmp_path / "none.asc")


def bids(folder: Path, rows: Any = None, **changed: Any) -> Path:
    xy = np.repeat([[100.0, 50.0], [300.0, 200.0]], 50, axis=0)
    lines = [f"{5000 + 4 * i}\t{x}\t{y}\t900" for i, (x, y) in enumerate(xy)]
    lines[20] = "5080\tn/a\tn/a\tn/a"
    text = "\n".join(lines if rows is None else rows) + "\n"
    file = folder / "sub-1_recording-eye1_physio.tsv.gz"
    file.write_bytes(gzip.compress(text.encode()))
    about = {
        "Columns": ["timestamp", "x_coordinate", "y_coordinate", "pupil_size"], "SamplingFrequency": 250,
        "SampleCoordinateUnits": "pixel", "StimulusPresentation": {
            "ScreenDistance": 0.6, "ScreenSize": [0.4, 0.3], "ScreenResolution": [400, 300]}, **changed,
    }  # fmt: skip
    (folder / "sub-1_recording-eye1_physio.json").write_text(json.dumps(about))
    return file


def test_bids(tmp_path: Path) -> None:
    samples, about = vg.read_bids_samples(bids(tmp_path))
    assert len(samples) == 100
    np.testing.assert_allclose(samples.time[:3], [0, 0.004, 0.008])
    assert about["SamplingFrequency"] == 250
    path = vg.read_bids(tmp_path / "sub-1_recording-eye1_physio.tsv.gz", (800, 600), image="a", subject="1")
    assert path.xy.tolist() == [[200, 100], [200, 100], [600, 400]]  # a gap parts the first
    assert path.screen.pixels_per_degree == pytest.approx(2 * vg.Screen.from_geometry(
        size_px=(400, 300), size_cm=(40, 30), distance_cm=60).pixels_per_degree)  # fmt: skip
    later = vg.read_bids(tmp_path / "sub-1_recording-eye1_physio.tsv.gz", (400, 300), between=(0.2, 9.0))
    assert later.start.tolist() == [0]
    assert later.xy.tolist() == [[300, 200]]


@pytest.mark.parametrize(
    ("rows", "changed", "message"),
    [
        (["1\t2\t3"], {}, "line 1: 3 cells, but the description names 4"),
        (["1\t2\t3\tx"], {}, "line 1: could not convert"),
        (["1\t2\t3\t4", "1\t2\t3\t4"], {}, "does not go with|must increase"),
        ([""], {}, "line 1|is empty"),
        (None, {"Columns": None}, "list of Columns"),
        (None, {"Columns": ["timestamp", "a", "b", "c"]}, "Columns must have x_coordinate"),
        (None, {"SamplingFrequency": None}, "SamplingFrequency must be"),
        (None, {"SamplingFrequency": 77000}, "does not go with"),
        (None, {"SampleCoordinateUnits": "degree"}, "must be pixels"),
        (None, {"StimulusPresentation": {}}, "no ScreenResolution"),
    ],
)
def test_bids_that_is_broken(tmp_path: Path, rows: Any, changed: dict, message: str) -> None:
    with pytest.raises(FileError, match=message):
        vg.read_bids(bids(tmp_path, rows, **changed), (400, 300))


def test_bids_without_its_description(tmp_path: Path) -> None:
    file = bids(tmp_path)
    (tmp_path / "sub-1_recording-eye1_physio.json").unlink()
    with pytest.raises(FileError, match=r"physio\.json"):
        vg.read_bids_samples(file)
    file.write_bytes(b"no gzip")
    (tmp_path / "sub-1_recording-eye1_physio.json").write_text(json.dumps({"Columns": ["timestamp"]}))
    with pytest.raises(FileError, match="cannot be read"):
        vg.read_bids_samples(file)


class Frame(dict):
    """Columns by name, as data frames have them."""

    @property
    def columns(self) -> list[str]:
        return list(self)


def events() -> Frame:
    return Frame(
        name=["fixation", "saccade", "fixation", "fixation_idt"], onset=[0, 200, 250, 10], offset=[200, 250, 400, 90],
        duration=[200, 50, 150, 80], location=[[100.0, 50.0], None, [300.0, 200.0], [7.0, 8.0]], trial=[1, 1, 1, 2],
    )  # fmt: skip


def test_pymovements() -> None:
    gaze = SimpleNamespace(events=SimpleNamespace(frame=events(), trial_columns=["trial"]))
    got = vg.from_pymovements(gaze, (640, 480), trials=["trial"], image="a.jpg", subject="s")
    assert [p.xy.tolist() for p in got] == [[[100, 50], [300, 200]], [[7, 8]]]
    assert got[0].start.tolist() == [0, 0.25]
    assert got[0].duration.tolist() == [0.2, 0.15]
    assert (got[0].image, got[0].subject) == ("a.jpg", "s")
    assert len(vg.from_pymovements(gaze.events, (640, 480))) == 2
    frame = events()
    frame["location_x"], frame["location_y"] = [1.0, None, 2.0, 3.0], [4.0, None, 5.0, 6.0]
    del frame["location"]
    named = vg.from_pymovements(frame, (640, 480), subject_column="trial")
    assert named.subjects == ("1", "2")
    for broken, message in (("location", "compute_event_properties"), ("onset", "no column 'onset'")):
        frame = events()
        del frame[broken]
        with pytest.raises(FileError, match=message):
            vg.from_pymovements(frame, (640, 480))
    with pytest.raises(FileError, match="no column 'page'"):
        vg.from_pymovements(events(), (640, 480), trials=["page"])
    with pytest.raises(SpecError, match="got int"):
        vg.from_pymovements(3, (640, 480))


STIMULI = SimpleNamespace(sizes=[(480, 640), (300, 400)], filenames=["a/x.jpg", "a\\y.jpg"])


def test_pysaliency_trains() -> None:
    nan = np.nan
    trains = SimpleNamespace(
        train_xs=np.array([[1.5, 2.5, nan], [3.0, nan, nan]]), train_ys=np.array([[4.0, 5.0, nan], [6.0, nan, nan]]),
        train_ts=np.array([[0.1, 0.4, nan], [0.2, nan, nan]]), train_ns=np.array([1, 0]),
        train_subjects=np.array([3, 4]),
        scanpath_fixation_attributes={"durations": np.array([[200, 300, nan], [100, nan, nan]])},
    )  # fmt: skip
    got = vg.from_pysaliency(trains, STIMULI, duration_unit=0.001)
    assert [p.image for p in got] == ["y.jpg", "x.jpg"]
    assert got[0].image_wh == (400, 300)
    assert got[0].xy.tolist() == [[1.5, 4], [2.5, 5]]
    assert got[0].start.tolist() == [0.1, 0.4]
    assert got[0].duration.tolist() == [0.2, 0.3]
    assert got.subjects == ("3", "4")


def test_pysaliency_scanpaths_and_fixations() -> None:
    xs, ys = [np.array([1.0, 2.0]), np.array([3.0, np.nan])], [np.array([4.0, 5.0]), np.array([6.0, np.nan])]
    paths = SimpleNamespace(
        xs=xs, ys=ys, n=[0, 1], length=[2, 1], scanpath_attributes={"subject": [8, 9]}, fixation_attributes={}
    )
    for given in (paths, SimpleNamespace(scanpaths=paths)):
        got = vg.from_pysaliency(given, STIMULI)
        assert [p.xy.tolist() for p in got] == [[[1, 4], [2, 5]], [[3, 6]]]
        assert got.subjects == ("8", "9")
    loose = SimpleNamespace(x=np.array([1.0, 2.0, 3.0]), y=np.array([1.0, 2.0, 3.0]), t=np.array([0.5, 0.1, 0.2]),
                            n=np.array([0, 0, 1]), subjects=np.array([1, 1, 1]))  # fmt: skip
    got = vg.from_pysaliency(loose, SimpleNamespace(sizes=STIMULI.sizes))
    assert [p.x.tolist() for p in got] == [[2, 1], [3]]
    assert got.images == ("0", "1")
    with pytest.raises(SpecError, match="picture 1, but there are 1 stimuli"):
        vg.from_pysaliency(paths, SimpleNamespace(sizes=[(9, 9)]))
    with pytest.raises(SpecError, match="expected fixations of pysaliency, got int"):
        vg.from_pysaliency(3, STIMULI)
