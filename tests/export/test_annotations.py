"""Annotations are read back by the libraries they are for, and hold exactly the regions of the maps."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

import vlmattn as va
from tests.export.conftest import FLAT, PEAKED, made
from vlmattn import export
from vlmattn.core.errors import DependencyMissing, FileError, MapError, SpecError

# -- regions -----------------------------------------------------------------------------------------------------------


def test_a_region_is_what_stands_out_in_pixels_of_the_original() -> None:
    marked = export.mark(made(PEAKED), threshold=0.5)
    (one,) = marked.regions
    # Cells (1, 1) and (1, 2) of 3 x 4 cells of 10 x 10 pixels.
    assert one.box_xyxy == (10, 10, 30, 20)
    assert one.box_xywh == (10, 10, 20, 10)
    assert one.area == 200
    assert one.mask_hw[10:20, 10:30].all()
    assert one.score == pytest.approx(1.7 / 2.0, rel=1e-5)
    assert (one.label, one.picture, marked.skipped) == ("cup", 0, ())


def test_the_box_is_that_of_the_look(run: Any) -> None:
    for word in run.words():
        if word.text.isalnum():
            look = run.map(word)
            (one,) = export.mark(look).regions
            assert one.box_xyxy == look.box_xyxy()


def test_several_regions_come_largest_first_and_small_ones_can_be_left_out() -> None:
    grid = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    areas = [one.area for one in export.mark(made(grid), threshold=1, most=5).regions]
    assert areas == [200, 100]
    assert len(export.mark(made(grid), threshold=1, most=5, least_pixels=101).regions) == 1
    assert export.mark(made(grid), threshold=1, least_pixels=201).skipped[0].startswith("'cup' on hand.png: no region")


def test_a_map_that_is_zero_nearly_everywhere_gives_no_region_as_large_as_the_picture() -> None:
    grid = np.zeros((10, 10))
    grid[4, 4] = 1
    (one,) = export.mark(made(grid, (100, 100))).regions
    assert one.box_xyxy == (40, 40, 50, 50)


def test_flat_maps_are_skipped_with_the_reason_and_the_others_kept() -> None:
    marked = export.mark([made(FLAT, label="no"), made(PEAKED, label="yes")])
    assert [one.label for one in marked.regions] == ["yes"]
    assert marked.skipped == (
        "'no' on hand.png: the map is flat: every pixel has the same value, so no region stands out",
    )
    assert marked.labels == ("no", "yes")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantile": 1.5}, "quantile must be a number from 0 to 1"),
        ({"threshold": float("nan")}, "threshold must be a finite number"),
        ({"most": 0}, "most must be a whole number"),
        ({"least_pixels": True}, "least_pixels must be a whole number"),
        ({"color": "red"}, "regions have no option 'color'"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        export.mark(made(PEAKED), **given)


@pytest.mark.parametrize("given", [[], "cup", 3, ["cup"], None])
def test_what_is_no_look_is_refused(given: Any) -> None:
    with pytest.raises(SpecError, match="look"):
        export.to_cvat(given)


def test_a_region_whose_box_is_not_its_masks_is_refused() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1, 2] = True
    with pytest.raises(MapError, match="tight box \\(2, 1, 3, 2\\)"):
        export.MarkedRegion("x", 0, mask, (0, 0, 4, 4), 1.0)
    with pytest.raises(MapError, match="hold a pixel"):
        export.MarkedRegion("x", 0, np.zeros((4, 4), bool), (0, 0, 1, 1), 1.0)


# -- COCO --------------------------------------------------------------------------------------------------------------


def quiet_coco(path: Path) -> Any:
    coco = pytest.importorskip("pycocotools.coco")
    return coco.COCO(str(path))


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_coco_is_loaded_by_pycocotools_and_its_masks_are_ours(run: Any, tmp_path: Path) -> None:
    looks = [run.map(word) for word in run.words() if word.text.isalnum()]
    marked = export.mark(looks, most=2)
    written = export.save_coco(tmp_path / "out", marked)
    coco = quiet_coco(written.file)
    names = {one["id"]: one["name"] for one in coco.loadCats(coco.getCatIds())}
    assert list(names.values()) == ["a", "red", "cup (answer, 1 of 2)", "no", "cup (answer, 2 of 2)"]
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["width"], image["height"]) == (201, 133)
    assert image["original_name"] == "räd cup / 猫 <1>.jpg"
    assert image["note"] == "EXIF orientation 6 applied"
    with Image.open(tmp_path / "out" / "images" / image["file_name"]) as shown:
        assert np.array_equal(shown, run.pictures[0].image)
    told = coco.loadAnns(coco.getAnnIds())
    assert len(told) == len(marked.regions) > 5
    for one, region in zip(told, marked.regions, strict=True):
        assert np.array_equal(coco.annToMask(one).astype(bool), region.mask_hw)
        assert tuple(one["bbox"]) == region.box_xywh
        assert (one["area"], names[one["category_id"]]) == (region.area, region.label)
        assert one["score"] == region.score
        assert coco.dataset["info"]["provenance"][one["provenance"]] == region.provenance.to_dict()
    assert len(coco.loadRes(told).getAnnIds()) == len(told)


def test_coco_tells_pictures_of_one_name_apart(two: Any, tmp_path: Path) -> None:
    written = two.export(tmp_path / "out", format="coco")
    coco = quiet_coco(written.file)
    assert [one["file_name"] for one in coco.dataset["images"]] == ["same.png", "same-2.png"]
    for image, seen in zip(coco.dataset["images"], two.pictures, strict=True):
        with Image.open(tmp_path / "out" / "images" / image["file_name"]) as shown:
            assert np.array_equal(shown, seen.image)
    assert {one["image_id"] for one in coco.dataset["annotations"]} == {1, 2}
    assert len(two.export(tmp_path / "one", format="coco", image=1).files) == 2


def test_a_category_without_a_region_stays_and_says_why(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    written = export.save_coco(tmp_path, [made(FLAT, label="no"), made(PEAKED, label="yes")])
    held = export.read_coco(written.file)
    assert [one["name"] for one in held["categories"]] == ["no", "yes"]
    assert len(held["annotations"]) == 1
    assert held["info"]["skipped"] == list(written.skipped)
    assert held["info"]["skipped"][0].startswith("'no' on hand.png")


def test_frames_of_a_video_are_pictures() -> None:
    pytest.importorskip("pycocotools")
    looks = [made(PEAKED, name=f"film.mp4, frame {n} ({n / 3:g} s)") for n in range(2)]
    held = export.to_coco([Film(looks)])
    names = ["film.mp4, frame 0 (0 s).png", "film.mp4, frame 1 (0.333333 s).png"]
    assert [one["file_name"] for one in held["images"]] == names
    assert [one["image_id"] for one in held["annotations"]] == [1, 2]


class Film:
    """A look at a video, as far as exports ask."""

    def __init__(self, looks: list[Any]) -> None:
        self.looks = looks
        self.label, self.picture, self.patch_map = looks[0].label, looks[0].picture, looks[0].patch_map
        self.pixels = None

    def frames(self) -> list[Any]:
        return self.looks


def test_files_that_are_there_are_replaced_and_others_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "annotations.json").write_text("old")
    export.save_coco(tmp_path, made(PEAKED))
    assert export.read_coco(tmp_path / "annotations.json")["annotations"]
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["save_coco", "save_cvat", "save_label_studio", "save_fiftyone"])
def test_a_file_in_the_folders_place_is_refused_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    if name == "save_coco":
        pytest.importorskip("pycocotools")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FileError, match="cannot make the folder"):
        getattr(export, name)(tmp_path / "out", made(PEAKED))
    assert (tmp_path / "out").read_text() == "a file"
    # The place of the pictures cannot be written: what was begun is taken away again.
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "images").write_text("a file")
    (tmp_path / "half" / "data").write_text("a file")
    with pytest.raises(FileError):
        getattr(export, name)(tmp_path / "half", made(PEAKED))
    assert sorted(p.name for p in (tmp_path / "half").iterdir()) == ["data", "images"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"images": 1}', '{"images": [], "annotations": [{}], "categories": []}']
)
def test_a_file_that_is_no_coco_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(FileError, match=r"x\.json"):
        export.read_coco(tmp_path / "x.json")


# -- supervision -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning:supervision")
def test_supervision_there_and_back(run: Any) -> None:
    sv = pytest.importorskip("supervision")
    looks = [run.map(word) for word in ("red", "cup")]
    marked = export.mark(looks, most=2)
    found = export.to_supervision(marked)
    assert isinstance(found, sv.Detections)
    assert len(found) == len(marked.regions)
    assert found.metadata["picture"] == marked.files[0].file
    boxes = sv.mask_to_xyxy(found.mask)  # its own ends are inclusive
    assert np.array_equal(np.add(boxes, [0, 0, 1, 1]), found.xyxy)
    assert list(found.class_id) == [marked.labels.index(one.label) for one in marked.regions]
    back = export.from_supervision(found[found.confidence >= 0])
    for one, other in zip(back, marked.regions, strict=True):
        assert (one.label, one.box_xyxy, one.provenance) == (other.label, other.box_xyxy, other.provenance)
        assert np.array_equal(one.mask_hw, other.mask_hw)
        assert one.score == pytest.approx(other.score)
    annotated = sv.MaskAnnotator().annotate(np.asarray(run.pictures[0].image).copy(), found)
    assert annotated.shape == (133, 201, 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:supervision")
def test_supervision_of_nothing_of_several_pictures_and_of_others(two: Any) -> None:
    sv = pytest.importorskip("supervision")
    empty = export.to_supervision(made(FLAT))
    assert len(empty) == 0
    assert empty.mask.shape == (0, 30, 40)
    assert empty.metadata["skipped"][0].startswith("'cup' on hand.png: the map is flat")
    with pytest.raises(SpecError, match=r"of one picture, and the looks are of 2 \(same.png, same-2.png\)"):
        export.to_supervision([two.map("red", image=0), two.map("red", image=1)])
    with pytest.raises(MapError, match="no masks"):
        export.from_supervision(sv.Detections(xyxy=np.zeros((1, 4), np.float32)))
    with pytest.raises(SpecError, match=r"expected supervision\.Detections"):
        export.from_supervision([1])


# -- Label Studio ------------------------------------------------------------------------------------------------------


def test_brush_bytes_are_those_of_label_studios_own_converter() -> None:
    mask = np.zeros((3, 5), bool)
    mask[1, 1:4] = mask[2, 4] = True
    # label_studio_sdk.converter.brush.mask2rle of the same mask (label-studio-sdk 2.1.2)
    known = [0, 0, 0, 60, 57, 27, 254, 23, 0, 183, 255, 132, 192, 35, 255, 0]
    assert export.encoded_brush(mask) == known
    assert np.array_equal(export.decoded_brush(known, (5, 3)), mask)


@pytest.mark.parametrize("wh", [(1, 1), (7, 3), (3, 7), (129, 128), (700, 400)])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_brush_masks_of_any_size_come_back(wh: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random((wh[1], wh[0])) < share
    if wh[0] > 200:
        mask = np.kron(mask[::100, ::100], np.ones((100, 100), bool)).astype(bool)[: wh[1], : wh[0]]
    assert np.array_equal(export.decoded_brush(export.encoded_brush(mask), wh), mask)


def test_a_brush_mask_that_is_cut_off_or_of_another_picture_is_refused() -> None:
    rle = export.encoded_brush(np.eye(30, dtype=bool))
    with pytest.raises(FileError, match="cut off or damaged"):
        export.decoded_brush(rle[: len(rle) // 2], (30, 30))
    with pytest.raises(FileError, match="a picture of 31 x 30"):
        export.decoded_brush(rle, (31, 30))


def test_label_studio_tasks_hold_the_exact_geometry(run: Any, tmp_path: Path) -> None:
    looks = [run.map(word) for word in ("red", "cup")]
    marked = export.mark(looks, most=2)
    written = export.save_label_studio(tmp_path, marked)
    (task,) = json.loads(written.file.read_text(encoding="utf-8"))
    assert task["data"]["image"] == "/data/local-files/?d=images/räd cup - 猫 -1-.png"
    assert (tmp_path / "images" / "räd cup - 猫 -1-.png").is_file()
    (prediction,) = task["predictions"]
    pairs = list(zip(prediction["result"][::2], prediction["result"][1::2], strict=True))
    for (box, mask), region in zip(pairs, marked.regions, strict=True):
        value, scale = box["value"], np.array([201, 133]) / 100
        corner = np.array([value["x"], value["y"]]) * scale
        assert np.allclose(
            [*corner, *(np.array([value["width"], value["height"]]) * scale)], region.box_xywh, atol=1e-9
        )
        assert value["rectanglelabels"] == mask["value"]["brushlabels"] == [region.label]
        assert np.array_equal(export.decoded_brush(mask["value"]["rle"], (201, 133)), region.mask_hw)
        assert (mask["original_width"], mask["original_height"], mask["image_rotation"]) == (201, 133, 0)
    config = ET.fromstring((tmp_path / "labelling.xml").read_text(encoding="utf-8"))
    names = {one.get("name"): [label.get("value") for label in one] for one in config}
    assert names == {"image": [], "box": ["red", "cup (answer, 1 of 2)"], "mask": ["red", "cup (answer, 1 of 2)"]}
    (other,) = export.to_label_studio(marked, prefix="s3://bucket/")
    assert other["data"]["image"] == "s3://bucket/räd cup - 猫 -1-.png"


def test_label_studios_own_library_accepts_the_tasks(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("label_studio_sdk", reason="not needed to write tasks")
    from label_studio_sdk.converter import brush
    from label_studio_sdk.label_interface import LabelInterface

    marked = export.mark([run.map("red"), run.map("cup")])
    written = export.save_label_studio(tmp_path, marked)
    (task,) = json.loads(written.file.read_text(encoding="utf-8"))
    interface = LabelInterface((tmp_path / "labelling.xml").read_text(encoding="utf-8"))
    assert interface.validate_prediction(task["predictions"][0], return_errors=True) == []
    masks = [one for one in task["predictions"][0]["result"] if one["type"] == "brushlabels"]
    for one, region in zip(masks, marked.regions, strict=True):
        pixels = brush.decode_rle(one["value"]["rle"]).reshape(133, 201, 4)
        assert np.array_equal(pixels[..., 3] > 0, region.mask_hw)


# -- CVAT --------------------------------------------------------------------------------------------------------------


def cvat_mask(shape: ET.Element, wh: tuple[int, int]) -> np.ndarray:
    """A reader of its own: run lengths outside and inside in turn, inside the mask's box."""
    counts = [int(n) for n in shape.get("rle", "").split(",")]
    left, top, width, height = (int(shape.get(name, "")) for name in ("left", "top", "width", "height"))
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    mask = np.zeros((wh[1], wh[0]), dtype=bool)
    mask[top : top + height, left : left + width] = values
    return mask


def test_cvat_holds_the_exact_geometry(run: Any, tmp_path: Path) -> None:
    marked = export.mark([run.map(word) for word in ("red", "cup")], most=2)
    written = export.save_cvat(tmp_path, marked)
    root = ET.parse(written.file).getroot()
    assert root.findtext("version") == "1.1"
    assert [one.text for one in root.iterfind("meta/task/labels/label/name")] == list(marked.labels)
    (image,) = root.findall("image")
    assert (image.get("width"), image.get("height")) == ("201", "133")
    assert (tmp_path / "images" / image.get("name", "")).is_file()
    shapes = zip(image.findall("box"), image.findall("mask"), marked.regions, strict=True)
    for box, mask, region in shapes:
        assert tuple(float(box.get(name, "")) for name in ("xtl", "ytl", "xbr", "ybr")) == region.box_xyxy
        assert box.get("label") == mask.get("label") == region.label
        assert np.array_equal(cvat_mask(mask, (201, 133)), region.mask_hw)
        assert float(mask.findtext("attribute", "")) == pytest.approx(region.score, abs=1e-6)


def test_a_mask_with_a_hole_and_one_that_begins_outside_come_back() -> None:
    from vlmattn.export.cvat import run_lengths

    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert run_lengths(ring) == [0, 4, 1, 4]
    assert run_lengths(~ring) == [4, 1, 4]
    assert run_lengths(np.ones((2, 2), bool)) == [0, 4]


@pytest.mark.hostile
def test_labels_that_xml_cannot_say_are_made_sayable(tmp_path: Path) -> None:
    looks = [made(PEAKED, label='<b>&"\x00\x1b\ud800'), made(FLAT, label="]]>")]
    text = export.to_cvat(looks)
    root = ET.fromstring(text)
    assert root.findtext("meta/task/labels/label/name") == '<b>&"\ufffd\ufffd\ufffd'
    assert "]]>" in (root.findtext("meta/task/skipped") or "")
    ET.fromstring(export.labelling_config([one.label for one in looks]))


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("../../etc/passwd", "-..-etc-passwd.png"),
        ("..", "picture.png"),
        ("", "picture.png"),
        ("a\x00b\nc.jpg", "a-b-c.png"),
        ("नमस्ते 😀.webp", "नमस्ते 😀.png"),
        ("CON:|?*.png", "CON----.png"),
        ("x" * 400 + ".jpg", "x" * 120 + ".png"),
        ("猫" * 200, "猫" * 40 + ".png"),
    ],
)
def test_names_of_pictures_become_names_of_files(name: str, file: str, tmp_path: Path) -> None:
    written = export.save_cvat(tmp_path / "out", made(PEAKED, name=name))
    assert written.files[1].name == file
    assert [p.name for p in (tmp_path / "out" / "images").iterdir()] == [file]


# -- FiftyOne ----------------------------------------------------------------------------------------------------------


def unpacked(text: str) -> np.ndarray:
    """An array as FiftyOne reads it: base64 of zlib of .npy."""
    return np.load(io.BytesIO(zlib.decompress(base64.b64decode(text))), allow_pickle=False)


def test_fiftyone_layout_holds_heatmaps_detections_and_fields(run: Any, tmp_path: Path) -> None:
    written = run.export(tmp_path, ["red", "cup"], format="fiftyone", name="mine")
    samples = json.loads(written.file.read_text(encoding="utf-8"))["samples"]
    head = json.loads((tmp_path / "metadata.json").read_text(encoding="utf-8"))
    assert (head["name"], head["media_type"]) == ("mine", "image")
    fields = head["info"]["fields"]
    assert fields == {"red": "map_0_red", "cup (answer, 1 of 2)": "map_1_cup_answer_1_of_2"}
    (sample,) = samples
    assert (tmp_path / sample["filepath"]).is_file()
    assert (sample["question"], sample["answer"]["label"]) == ("Describe the picture.", run.answer)
    looks = [run.map("red"), run.map("cup")]
    for look in looks:
        told = sample[fields[look.label]]
        assert told["_cls"] == "Heatmap"
        assert np.array_equal(unpacked(told["map"]), look.pixels.values)
        assert told["range"] == [0.0, float(look.pixels.values.max())]
    shares = {one.word: one.image_share for one in run.grounding()}
    for one, region in zip(sample["regions"]["detections"], export.mark(looks).regions, strict=True):
        x, y, w, h = np.array(one["bounding_box"]) * [201, 133, 201, 133]
        assert np.allclose([x, y, w, h], region.box_xywh)
        x0, y0, x1, y1 = region.box_xyxy
        assert np.array_equal(unpacked(one["mask"]), region.mask_hw[y0:y1, x0:x1])
        assert one["image_share"] == shares[region.label]
        assert one["confidence"] == region.score


def test_a_heatmap_of_a_photograph_stays_small_and_a_flat_one_has_a_range(tmp_path: Path) -> None:
    written = export.save_fiftyone(tmp_path, [made(PEAKED, (1500, 900)), made(FLAT, (1500, 900), "flat")])
    (sample,) = json.loads(written.file.read_text(encoding="utf-8"))["samples"]
    assert unpacked(sample["map_0_cup"]["map"]).shape == (614, 1024)
    assert sample["map_1_flat"]["range"] == [0.0, 0.25]
    assert len(sample["regions"]["detections"]) == 1
    zero = export.save_fiftyone(tmp_path / "zero", made(np.zeros((2, 2))))
    assert json.loads(zero.file.read_text())["samples"][0]["map_0_cup"]["range"] == [0.0, 1.0]


def test_fiftyones_own_classes_read_the_samples(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("fiftyone", reason="not needed to write data sets")
    from fiftyone.utils.data.importers import LegacyFiftyOneDatasetImporter

    run.export(tmp_path, ["red"], format="fiftyone")
    with LegacyFiftyOneDatasetImporter(str(tmp_path)) as importer:
        (sample,) = list(importer)
    assert np.array_equal(sample["map_0_red"].map, run.map("red").pixels.values)
    (again,) = export.to_fiftyone([run.map("red")], folder=tmp_path / "live", grounding=run.grounding())
    assert again["regions"].detections[0].label == "red"
    assert Path(again.filepath).is_file()


@pytest.mark.skipif(importlib.util.find_spec("fiftyone") is not None, reason="fiftyone is installed")
def test_without_fiftyone_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DependencyMissing, match=r"vlmattn\[fiftyone\]"):
        export.to_fiftyone(made(PEAKED), folder=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_an_exif_rotated_picture_is_written_upright_and_boxes_are_of_it(vlm: Any, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: upright is a quarter to the right
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[:30, :, 0] = 250
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    turned = vlm.ask(tmp_path / "turned.jpg", "What is it?", answer="red")
    held = export.read_coco(turned.export(tmp_path / "out", format="coco").file)
    (image,) = held["images"]
    assert (image["width"], image["height"], image["note"]) == (60, 100, "EXIF orientation 6 applied")
    with Image.open(tmp_path / "out" / "images" / image["file_name"]) as shown:
        assert shown.size == (60, 100)
        assert not shown.getexif()
        assert np.asarray(shown)[:, 40:, 0].mean() > 200
    assert va.load_image(tmp_path / "out" / "images" / "turned.png").notes == ()
