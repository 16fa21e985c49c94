"""What a picture looks like without a part: every way by hand, and imputation against a plain dense solve."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vlmattn.core.errors import MapError, SpecError
from vlmattn.faithfulness import BASELINES, Cells, linear_imputation, without
from vlmattn.faithfulness.removal import Changed

RNG = np.random.default_rng(3)
COLOURS = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
IMAGE = Image.fromarray(COLOURS)
HOLE = np.zeros((6, 8), bool)
HOLE[1:5, 3:8] = True


@pytest.mark.parametrize("baseline", BASELINES)
def test_what_stays_is_left_alone_and_what_goes_changes(baseline: str) -> None:
    assert without(IMAGE, np.zeros_like(HOLE), baseline) is IMAGE  # type: ignore[arg-type]
    changed = np.asarray(without(IMAGE, HOLE, baseline))  # type: ignore[arg-type]
    assert (changed[~HOLE] == COLOURS[~HOLE]).all()
    assert (changed[HOLE] != COLOURS[HOLE]).any(axis=1).mean() > 0.9
    assert np.asarray(without(IMAGE, np.ones_like(HOLE), baseline)).shape == COLOURS.shape  # type: ignore[arg-type]


def test_baselines_by_hand() -> None:
    mean = COLOURS.reshape(-1, 3).mean(axis=0).round()
    assert (np.asarray(without(IMAGE, HOLE, "mean"))[HOLE] == mean).all()
    assert (np.asarray(without(IMAGE, HOLE, "black"))[HOLE] == 0).all()
    blurred = np.asarray(IMAGE.filter(ImageFilter.GaussianBlur(8 / 25)))
    assert (np.asarray(without(IMAGE, HOLE, "blur"))[HOLE] == blurred[HOLE]).all()
    for baseline in ("inpaint", "imputed"):  # nothing to start from
        assert (np.asarray(without(IMAGE, np.ones_like(HOLE), baseline)) == mean).all()  # type: ignore[arg-type]


def dense(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Plainly: one equation per hole, and all others known."""
    height, width = mask.shape
    matrix, right = np.eye(height * width), values.reshape(height * width, -1).copy()
    for y, x in np.argwhere(mask):
        line = y * width + x
        weights = {
            (y + dy, x + dx): (1 / 6 if 0 in (dy, dx) else 1 / 12)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy, dx) != (0, 0) and 0 <= y + dy < height and 0 <= x + dx < width
        }
        for (ny, nx), weight in weights.items():
            matrix[line, ny * width + nx] -= weight / sum(weights.values())
        right[line] = 0
    return np.linalg.solve(matrix, right).reshape(values.shape)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_imputation_is_the_plain_solution(share: float) -> None:
    rng = np.random.default_rng(7)
    values, mask = rng.random((9, 7, 3)), rng.random((9, 7)) < share
    mask[4, 4] = True
    mask[0, 0] = False
    found = linear_imputation(values, mask)
    assert np.abs(found - dense(values, mask)).max() < 1e-10
    assert (found[~mask] == values[~mask]).all()


def test_imputation_at_its_ends() -> None:
    values = np.random.default_rng(0).random((3, 4, 2))
    assert (linear_imputation(values, np.zeros((3, 4), bool)) == values).all()
    with pytest.raises(MapError, match="every pixel"):
        linear_imputation(values, np.ones((3, 4), bool))
    same = np.full((5, 5, 1), 0.25)
    mask = np.zeros((5, 5), bool)
    mask[:4] = True
    assert np.abs(linear_imputation(same, mask) - 0.25).max() < 1e-12


def test_the_noise_is_of_a_hundredth_and_seeded() -> None:
    grey = Image.fromarray(np.full((40, 40, 3), 128, np.uint8))
    mask = np.zeros((40, 40), bool)
    mask[:, 5:] = True
    one = np.asarray(without(grey, mask, "imputed", rng=np.random.default_rng(1)), dtype=float)
    assert one[mask].std() / 255 == pytest.approx(0.01, rel=0.08)
    again = np.asarray(without(grey, mask, "imputed", rng=np.random.default_rng(1)), dtype=float)
    other = np.asarray(without(grey, mask, "imputed", rng=np.random.default_rng(2)), dtype=float)
    assert (one == again).all()
    assert (one != other).any()


def test_large_pictures_are_imputed_small_and_nothing_of_the_hole_leaks() -> None:
    colours = np.full((300, 700, 3), 60, np.uint8)
    mask = np.zeros((300, 700), bool)
    mask[51:223, 101:333] = True
    colours[mask] = 250
    filled = np.asarray(without(Image.fromarray(colours), mask, "imputed"))
    assert (filled[~mask] == 60).all()
    assert np.abs(filled[mask].astype(int) - 60).max() <= 16


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_picture_of_one_pixel(baseline: str) -> None:
    one = Image.fromarray(np.full((1, 1, 3), 77, np.uint8))
    assert without(one, np.ones((1, 1), bool), baseline).size == (1, 1)  # type: ignore[arg-type]


def test_refused() -> None:
    with pytest.raises(SpecError, match="mean, black, blur"):
        without(IMAGE, HOLE, "white")  # type: ignore[arg-type]
    with pytest.raises(MapError, match=r"\(6, 8\)"):
        without(IMAGE, HOLE.T)


def test_changed_pictures_are_made_when_looked_at() -> None:
    cells = Cells(np.repeat(np.arange(8)[None], 6, axis=0), np.arange(8.0))
    seen = Changed(IMAGE, cells, [np.array([], int), np.array([2, 3]), np.arange(8)], "imputed")
    assert len(seen) == 3
    assert seen[0] is IMAGE
    assert (np.asarray(seen[1]) != COLOURS).any(axis=(0, 2)).tolist() == [False, False, True, True, *[False] * 4]
    assert [np.asarray(one).tolist() for one in seen[1:]] == [np.asarray(seen[k]).tolist() for k in (1, -1)]
    with pytest.raises(IndexError):
        seen[3]
