"""Readers of published sets: what the formats say, in our units; and one clear error for each broken file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from vlmattn import gaze as vg
from vlmattn.core.errors import FileError, ImageError, SpecError


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def search(**changed: Any) -> dict[str, Any]:
    return {
        "name": "000000400966.jpg", "subject": 2, "task": "potted plant", "condition": "present",
        "bbox": [1, 2, 3, 4], "X": [256.0, 300.5, 40.0], "Y": [160.0, 20.25, 300.0], "T": [150, 201, 340],
        "length": 3, "fixOnTarget": True, "correct": 1, "split": "train", **changed,
    }  # fmt: skip


def test_coco_search18(tmp_path: Path) -> None:
    rows = [search(), search(subject=3, task="stop sign", condition="absent", bbox=None)]
    got = vg.read_coco_search18(put(tmp_path / "f.json", rows))
    assert got[0].image_wh == (512, 320)
    assert got[0].xy.tolist() == [[256, 160], [300.5, 20.25], [40, 300]]
    assert got[0].duration.tolist() == [0.15, 0.201, 0.34]
    assert got[0].start is None
    assert (got[0].image, got[0].subject, got.tasks) == ("000000400966.jpg", "2", ("potted plant", "stop sign"))
    assert got[0].trial["bbox"] == [1, 2, 3, 4]
    assert "bbox" not in got[1].trial
    assert len(got.select(condition="absent")) == 1
    big = vg.read_coco_search18(put(tmp_path / "g.json", [search(X=[840, 900, 512.0], Y=[5.0, 6, -7])]), outside="drop")
    assert big[0].image_wh == (1680, 1050)
    assert len(big[0]) == 2
    assert vg.read_coco_search18(tmp_path / "g.json", image_wh=(1680, 1050)).count == 3


def test_coco_search18_as_it_is_broken(tmp_path: Path) -> None:
    cut = put(tmp_path / "f.json", [search(), search(T=[150, 201, 340, 400])])
    with pytest.raises(FileError, match=r"f\.json, entry 1: columns have different lengths.*shorten=True"):
        vg.read_coco_search18(cut)
    assert [len(p) for p in vg.read_coco_search18(cut, shorten=True)] == [3, 3]
    zero = put(tmp_path / "z.json", [search(T=[150, 0, 340])])
    with pytest.raises(FileError, match=r"entry 0: duration must be above 0"):
        vg.read_coco_search18(zero)
    assert vg.read_coco_search18(zero, drop_bad=True).count == 2


def test_coco_freeview(tmp_path: Path) -> None:
    row = search(task="none", condition="freeview")
    assert vg.read_coco_freeview(put(tmp_path / "f.json", [row]))[0].task is None
    assert vg.read_coco_search18(tmp_path / "f.json")[0].task is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("[{", "not a whole JSON array"),
        ("[1]", "row 1 is a int"),
        ([{"X": [1], "Y": [1], "T": [1]}], "entry 0 has no 'name'"),
        ([{"name": "a", "Y": [1], "T": [1]}], "entry 0 has no 'X'"),
        ([{"name": "a", "X": "12", "Y": [1], "T": [1]}], "'X' is '12'|lists of numbers"),
        ([{"name": "a", "X": ["u"], "Y": [1], "T": [1]}], "lists of numbers|must be numbers|could not convert"),
        ([{"name": "a", "X": [None], "Y": [1], "T": [1]}], "finite"),
    ],
)
def test_json_that_is_broken(tmp_path: Path, content: Any, message: str) -> None:
    file = put(tmp_path / "f.json", content)
    for read in (vg.read_coco_search18, vg.read_coco_freeview):
        with pytest.raises(FileError, match=message) as caught:
            read(file)
        assert "f.json" in str(caught.value)


def test_osie(golden: Path) -> None:
    file = golden / "gaze" / "osie" / "fixations.mat"
    if not file.is_file():
        pytest.skip(f"no OSIE at {file}")
    got = vg.read_osie(file)
    assert (len(got), got.count, len(got.images), len(got.subjects)) == (10500, 98321, 700, 15)
    assert sum(len(p) < 3 for p in got) == 11
    lengths = np.array([len(p) for p in got])
    assert (lengths.min(), lengths.max(), round(lengths.mean(), 2)) == (1, 22, 9.36)
    durations = np.concatenate([p.duration for p in got])
    assert (durations.min(), durations.max()) == (0.02, 1.975)
    assert round(durations.mean(), 3) == 0.214
    assert all(p.on_image().all() for p in got)
    points = got.points()
    assert points.min(axis=0).round(1).tolist() == [0.7, 0.7]  # 1.2 where pixels count from 1
    assert got.images[0] == "1001.jpg"


def mat_of_osie(path: Path, **changed: Any) -> Path:
    subject = {
        "fix_x": np.array([[1.0, 800.0]]),
        "fix_y": np.array([[1.0, 600.0]]),
        "fix_duration": np.array([[200, 300]]),
    }
    subjects = np.empty((2, 1), object)
    subjects[0, 0], subjects[1, 0] = subject, {**subject, **changed}
    cells = np.empty((1, 1), object)
    cells[0, 0] = {"img": "1001.jpg", "subjects": subjects}
    savemat(path, {"fixations": cells})
    return path


def test_osie_by_hand(tmp_path: Path) -> None:
    got = vg.read_osie(mat_of_osie(tmp_path / "f.mat"))
    assert [p.subject for p in got] == ["1", "2"]
    assert got[0].xy.tolist() == [[0.5, 0.5], [799.5, 599.5]]
    assert got[0].duration.tolist() == [0.2, 0.3]
    with pytest.raises(FileError, match=r"picture 1 \(1001.jpg\), subject 2: .*one value for each"):
        vg.read_osie(mat_of_osie(tmp_path / "g.mat", fix_duration=np.array([[200]])))


@pytest.mark.parametrize(
    "content", [b"", b"MATLAB 5.0 MAT-file" + b"\0" * 300, b"\x89HDF\r\n\x1a\n" + b"\0" * 600, b"x" * 999]
)
def test_mat_files_that_are_broken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.mat").write_bytes(content)
    with pytest.raises(FileError, match=r"f\.mat"):
        vg.read_osie(tmp_path / "f.mat")


def test_mat_files_cut_short_anywhere(tmp_path: Path) -> None:
    whole = mat_of_osie(tmp_path / "f.mat").read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "g.mat").write_bytes(whole[:size])
        with pytest.raises(FileError, match=r"g\.mat"):
            vg.read_osie(tmp_path / "g.mat")
    with pytest.raises(FileError, match="does not exist"):
        vg.read_osie(tmp_path / "none.mat")
    savemat(tmp_path / "h.mat", {"other": 1.0})
    with pytest.raises(FileError, match="no variable 'fixations'; it has"):
        vg.read_osie(tmp_path / "h.mat")
    savemat(tmp_path / "i.mat", {"fixations": 1.0})
    with pytest.raises(FileError, match="expected a struct"):
        vg.read_osie(tmp_path / "i.mat")


def salicon(**changed: Any) -> dict[str, Any]:
    image = {"id": 9, "file_name": "COCO_val2014_9.jpg", "height": 480, "width": 640}
    row = {"id": 1, "image_id": 9, "worker_id": 4, "fixations": [[1, 1], [480, 640], [3, 10]]}
    return {"images": [image], "annotations": [{**row, **changed}], "type": "fixations"}


def test_salicon(tmp_path: Path) -> None:
    got = vg.read_salicon(put(tmp_path / "f.json", salicon()))
    assert got[0].xy.tolist() == [[0.5, 0.5], [639.5, 479.5], [9.5, 2.5]]  # rows come first there, counted from 1
    assert (got[0].image, got[0].subject, got[0].duration) == ("COCO_val2014_9.jpg", "4", None)
    assert len(vg.read_salicon(put(tmp_path / "g.json", salicon(fixations=[])))[0]) == 0
    for changed, message in (
        ({"image_id": 8}, "no image 8"),
        ({"fixations": [[1]]}, "annotation 0"),
        ({"fixations": 3}, "annotation 0"),
    ):
        with pytest.raises(FileError, match=message):
            vg.read_salicon(put(tmp_path / "h.json", salicon(**changed)))
    with pytest.raises(FileError, match="no 'images'"):
        vg.read_salicon(put(tmp_path / "h.json", {}))


def test_salicon_of_matlab(tmp_path: Path) -> None:
    workers = np.empty((1, 2), object)
    for i in range(2):
        workers[0, i] = {"location": np.array([[1.0, 2.0], [3.0, 4.0]]), "timestamp": np.array([[0.0, 16.0]]),
                         "fixations": np.array([[640.0, 480.0]])}  # fmt: skip
    savemat(tmp_path / "f.mat", {"gaze": workers})
    got = vg.read_salicon_mat(tmp_path / "f.mat", image="a.jpg")
    assert [p.xy.tolist() for p in got] == [[[639.5, 479.5]]] * 2
    raw = vg.read_salicon_mat(tmp_path / "f.mat", image="a.jpg", raw=True)
    assert raw[0].start.tolist() == [0.0, 0.016]


def air(root: Path, xy: Any, t: Any) -> Path:
    (root / "fix" / "q1").mkdir(parents=True, exist_ok=True)
    savemat(root / "fix" / "q1" / "ab.mat", {"xy": np.asarray(xy, float), "t": np.asarray(t, float)})
    return root / "fix"


def test_air(tmp_path: Path) -> None:
    folder = air(tmp_path, [[10, 20], [30, 40]], [[0, 200], [250, 400]])
    told = put(tmp_path / "a.json", {"question": {"q1": "Is it?"}, "answer": {"q1": "yes"}, "ab": {"q1": "no"}})
    got = vg.read_air(folder, {"q1": "7.jpg"}, (640, 480), answers=told)
    assert got[0].xy.tolist() == [[10, 20], [30, 40]]
    assert got[0].start.tolist() == [0, 0.25]
    assert got[0].duration.tolist() == [0.2, 0.15]
    assert (got[0].task, got[0].image, got[0].subject) == ("Is it?", "7.jpg", "ab")
    assert got[0].trial == {"question_id": "q1", "answer": "yes", "answered": "no", "correct": False}
    assert len(vg.read_air(air(tmp_path, np.zeros((0, 0)), np.zeros((0, 0))), {"q1": "7.jpg"}, (640, 480))[0]) == 0
    assert vg.read_air(air(tmp_path, [[1, 2]], [[0, 5]]), {"q1": "7.jpg"}, (640, 480)).count == 1
    with pytest.raises(FileError, match="question q1 is not given"):
        vg.read_air(folder, {}, (640, 480))
    with pytest.raises(FileError, match="xy has 1 fixations and t has 2"):
        vg.read_air(air(tmp_path, [[1, 2]], [[0, 5], [6, 7]]), {"q1": "7.jpg"}, (640, 480))
    with pytest.raises(FileError, match="there is no"):
        vg.read_air(tmp_path / "none", {}, (640, 480))
    with pytest.raises(FileError, match=r"size of the picture '7\.jpg' is not known"):
        vg.read_air(folder, {"q1": "7.jpg"}, {"8.jpg": (1, 1)})


def test_sizes_come_from_the_pictures(tmp_path: Path) -> None:
    folder = air(tmp_path, [[10, 20]], [[0, 200]])
    Image.new("RGB", (30, 20)).save(tmp_path / "7.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "8.jpg", exif=exif)
    assert vg.read_air(folder, {"q1": "7.jpg"}, tmp_path)[0].image_wh == (30, 20)
    assert vg.read_air(folder, {"q1": "8.jpg"}, tmp_path)[0].image_wh == (20, 30)
    (tmp_path / "9.jpg").write_bytes(b"no picture")
    for name, message in (
        ("9.jpg", "cannot be read as a picture"),
        ("10.jpg", "does not exist"),
        ("../x", "leads out"),
    ):
        with pytest.raises((FileError, ImageError), match=message):
            vg.read_air(folder, {"q1": name}, tmp_path)
    with pytest.raises(FileError, match="folder of pictures"):
        vg.read_air(folder, {"q1": "7.jpg"}, tmp_path / "none")


def refcoco(**changed: Any) -> dict[str, Any]:
    return {
        "IMAGEFILE": "1.jpg", "FIX_X": [840.0, 900.0], "FIX_Y": [525.0, 500.0], "FIX_DURATION": [180, 220],
        "FIX_START": [-40, 260], "FIX_IN_BBOX": [False, True], "REF_WORDS": ["guy", "in", "red"], "SUBJECT_ID": 7,
        "BBOX": [1, 2, 3, 4], "REF_ID": 5, "TARGET": "guy", "SOUND_ON": 700, "REFCOCO_GAZE_SPLIT": "train", **changed,
    }  # fmt: skip


def test_refcoco_gaze(tmp_path: Path) -> None:
    got = vg.read_refcoco_gaze(put(tmp_path / "f.json", [refcoco(), refcoco(REF_WORDS="guy in red")]))
    assert got[0].image_wh == (1680, 1050)
    assert got[0].start.tolist() == [-0.04, 0.26]
    assert got[0].duration.tolist() == [0.18, 0.22]
    assert got.tasks == ("guy in red",)
    assert got[0].trial["split"] == "train"
    row = refcoco()
    del row["FIX_START"]
    assert vg.read_refcoco_gaze(put(tmp_path / "g.json", [row]))[0].start is None
    for changed, message in (({"FIX_X": [1]}, "different lengths"), ({"FIX_START": [5, 4]}, "start must increase")):
        with pytest.raises(FileError, match=f"entry 0.*{message}"):
            vg.read_refcoco_gaze(put(tmp_path / "h.json", [refcoco(**changed)]))


def mit(root: Path, eye: Any) -> Path:
    (root / "DATA" / "hp").mkdir(parents=True, exist_ok=True)
    data = np.empty((1, 1), object)
    data[0, 0] = {"eyeData": eye}
    savemat(root / "DATA" / "hp" / "street.mat", {"street": {"DATA": data}})
    return root / "DATA"


def test_mit1003(tmp_path: Path) -> None:
    eye = np.repeat([[320.0, 240.0], [100.0, 60.0], [500.0, 400.0]], 60, axis=0)
    eye[70:74] = -1  # a blink
    folder = mit(tmp_path, eye)
    kept = vg.read_mit1003(folder, {"street.jpeg": (640, 480)}, initial="keep")
    assert kept[0].xy.tolist() == [[319.5, 239.5], [99.5, 59.5], [499.5, 399.5]]
    got = vg.read_mit1003(folder, {"street.jpeg": (640, 480)})
    assert got[0].xy.tolist() == kept[0].xy.tolist()[1:]
    assert (got[0].image, got[0].subject) == ("street.jpeg", "hp")
    np.testing.assert_allclose(got[0].start, [74 / 240, 120 / 240])
    assert vg.read_mit1003(folder, {"street.jpeg": (640, 480)}, method="ivt")[0].image_wh == (640, 480)
    with pytest.raises(FileError, match="shape"):
        vg.read_mit1003(mit(tmp_path, np.zeros(7)), (640, 480))
    with pytest.raises(SpecError, match="initial"):
        vg.read_mit1003(folder, (640, 480), initial="x")  # type: ignore[arg-type]
    with pytest.raises(FileError, match="there is no"):
        vg.read_mit1003(tmp_path, (640, 480))


def capmit(path: Path) -> Path:
    db = sqlite3.connect(path)
    db.executescript("""
        CREATE TABLE captions(obs_uid, usr_uid, start_time, caption, img_uid);
        CREATE TABLE images(img_uid, img_path);
        CREATE TABLE clicks(click_id INTEGER, obs_uid, x INTEGER, y INTEGER, click_time);
        INSERT INTO images VALUES ('i', 'mit1003/ALLSTIMULI/street.jpeg');
        INSERT INTO captions VALUES ('o1', 'u', 0, 'a street', 'i'), ('o2', 'u', 0, 'nothing clicked', 'i');
        INSERT INTO clicks VALUES (2, 'o1', 30, 40, 0), (1, 'o1', 10, 20, 0);
    """)
    db.commit()
    db.close()
    return path


def test_capmit1003(tmp_path: Path) -> None:
    got = vg.read_capmit1003(capmit(tmp_path / "c.db"), {"street.jpeg": (640, 480)})
    assert got[0].xy.tolist() == [[10.5, 20.5], [30.5, 40.5]]  # by click_id
    assert (got[0].task, got[0].image, got[0].subject, got[0].duration) == ("a street", "street.jpeg", "u", None)
    assert len(got[1]) == 0
    (tmp_path / "no.db").write_bytes(b"no database at all" * 99)
    for name in ("no.db", "empty.db"):
        if name == "empty.db":
            sqlite3.connect(tmp_path / name).close()
            (tmp_path / name).touch()
        with pytest.raises(FileError, match="is not CapMIT1003"):
            vg.read_capmit1003(tmp_path / name, (640, 480))
    with pytest.raises(FileError, match="does not exist"):
        vg.read_capmit1003(tmp_path / "none.db", (640, 480))
    assert not (tmp_path / "none.db").exists()


def test_human_maps(tmp_path: Path) -> None:
    values = np.array([[0, 50], [100, 50]], np.uint8)
    for name in ("12_1.png", "12_2.png", "7_1.png"):
        Image.fromarray(values).save(tmp_path / name)
    got = vg.read_vqa_hat(tmp_path)
    assert {k: len(v) for k, v in got.items()} == {"12": 2, "7": 1}
    assert got["7"][0].tolist() == [[0, 0.25], [0.5, 0.25]]
    large = vg.read_vqa_hat(tmp_path, {"12": (8, 4), "7": (8, 4)})["12"][0]
    assert large.shape == (4, 8)
    assert large.sum() == pytest.approx(1)
    assert large[3, 0] == large.max()
    with pytest.raises(FileError, match=r"question 12|question 7"):
        vg.read_vqa_hat(tmp_path, {})
    with pytest.raises(FileError, match="there is no map"):
        vg.read_vqa_hat(tmp_path / "none")


def test_mhug_maps(tmp_path: Path) -> None:
    np.save(tmp_path / "262148000_p3.npy", np.eye(3))
    assert vg.read_vqa_mhug_maps(tmp_path)["262148000"][0][0, 0] == pytest.approx(1 / 3)
    assert list(vg.read_vqa_mhug_maps(tmp_path, name=r"p(\d+)")) == ["3"]
    for name in ("(", "no group"):
        with pytest.raises(SpecError, match="name must"):
            vg.read_vqa_mhug_maps(tmp_path, name=name)
    np.save(tmp_path / "x.npy", np.eye(3))
    with pytest.raises(FileError, match="no question id"):
        vg.read_vqa_mhug_maps(tmp_path)


def test_maps_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "negative.npy", -np.eye(3))
    np.save(tmp_path / "zero.npy", np.zeros((3, 3)))
    np.save(tmp_path / "cube.npy", np.ones((2, 2, 2)))
    Image.new("RGB", (3, 3), (1, 2, 3)).save(tmp_path / "colour.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    (tmp_path / "broken.npy").write_bytes(b"x")
    names = ["objects.npy", "negative.npy", "zero.npy", "cube.npy", "colour.png", "broken.png", "broken.npy",
             "none.png", "none.npy"]  # fmt: skip
    for name in names:
        with pytest.raises(FileError, match=name):
            vg.read_human_map(tmp_path / name)
    Image.new("RGB", (3, 3), (7, 7, 7)).save(tmp_path / "grey.png")
    assert vg.read_human_map(tmp_path / "grey.png")[0, 0] == pytest.approx(1 / 9)
