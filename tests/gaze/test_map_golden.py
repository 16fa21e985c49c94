"""Values of pysaliency, of MIT's MATLAB definitions and of HAT, within 1e-6 (golden data)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from vlmattn import gaze as vg
from vlmattn.gaze import Fixations, Scanpath


class Golden:
    def __init__(self, folder: Path) -> None:
        values = folder / "gaze" / "reference_values"
        if not values.is_dir():
            pytest.skip(f"no golden data of gaze at {values}")
        held = json.loads((values / "pysaliency_reference.json").read_text())
        self.mit = json.loads((values / "saliency_mit_and_conditional_reference.json").read_text())
        self.maps = [np.asarray(m) for m in held["maps"]]
        self.golds = [np.asarray(m) for m in held["gold"]["maps"]]
        self.sigma = held["gold"]["sigma_px"]
        self.wh = (held["width"], held["height"])
        f = held["fixations"]
        points, image = np.column_stack([f["x"], f["y"]]), np.asarray(f["image"])
        self.points = [points[image == i] for i in range(3)]
        self.fixations = Fixations(
            tuple(Scanpath.from_points(p, self.wh, image=str(i)) for i, p in enumerate(self.points))
        )
        self.results: dict[str, Any] = held["results"]

    def others(self, i: int) -> np.ndarray:
        return vg.other_points(self.fixations, str(i), self.wh)

    def negatives(self, kind: str, i: int) -> Any:
        return self.others(i) if kind == "shuffled" else kind


@pytest.fixture
def held(golden: Path) -> Golden:
    return Golden(golden)


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["uniform", "unfixated", "shuffled"])
def test_auc(held: Golden, kind: str) -> None:
    told = held.results
    each = [
        vg.auc_each(m, p, negatives=held.negatives(kind, i))
        for i, (m, p) in enumerate(zip(held.maps, held.points, strict=True))
    ]
    close(np.concatenate(each), told[f"AUC_per_fixation_{kind}"])
    close(np.concatenate(each).mean(), told[f"AUC_{kind}_avg_fixation"])
    for thresholds, name in (("all", "all"), ("fixated", "fixations")):
        per_image = [
            vg.auc(m, p, negatives=held.negatives(kind, i), thresholds=thresholds)
            for i, (m, p) in enumerate(zip(held.maps, held.points, strict=True))
        ]
        close(per_image, told[f"AUC_per_image_{kind}_thresholds_{name}"])
    close(np.mean([e.mean() for e in each]), told[f"AUC_{kind}_avg_image"])


def test_shuffled(held: Golden) -> None:
    got = [vg.auc_shuffled(m, p, held.others(i)) for i, (m, p) in enumerate(zip(held.maps, held.points, strict=True))]
    close(np.mean(got), held.results["sAUC_avg_image"])
    close(np.average(got, weights=[len(p) for p in held.points]), held.results["sAUC_avg_fixation"])


def test_judd_of_pysaliency(held: Golden) -> None:
    got = [vg.auc_judd(m, p, variant="pysaliency") for m, p in zip(held.maps, held.points, strict=True)]
    close(np.mean(got), held.results["AUC_Judd_no_jitter"])
    state = np.random.RandomState(42)  # pysaliency's own stream of noise
    noisy = [
        vg.auc_judd(m + 1e-7 * state.randn(*m.shape), p, variant="pysaliency")
        for m, p in zip(held.maps, held.points, strict=True)
    ]
    close(np.mean(noisy), held.results["AUC_Judd_jitter_seed42"])


def test_values_at_fixations(held: Golden) -> None:
    close(
        np.concatenate([vg.nss_each(m, p) for m, p in zip(held.maps, held.points, strict=True)]),
        held.results["NSS_per_fixation"],
    )
    densities = [(m + 0.01) / (m + 0.01).sum() for m in held.maps]
    gains = [vg.information_gain(d, p) for d, p in zip(densities, held.points, strict=True)]
    weights = [len(p) for p in held.points]
    close(np.average(gains, weights=weights), held.results["IG_bits_vs_uniform"])
    each = [
        vg.conditional_ig([d] * len(p), p, variant="pysaliency") for d, p in zip(densities, held.points, strict=True)
    ]
    close(np.concatenate(each), held.results["IG_bits_vs_uniform_per_fix"])
    w, h = held.wh
    x, y = np.arange(w) / w - 0.5, np.arange(h) / h - 0.5  # pysaliency counts from the pixel's corner
    base = np.exp(-0.5 * (x[None] ** 2 + y[:, None] ** 2) / 0.5**2)
    gains = [vg.information_gain(d, p, base) for d, p in zip(densities, held.points, strict=True)]
    close(np.average(gains, weights=weights), held.results["IG_bits_vs_gaussian_w0.5"])
    nats = np.concatenate(each) * np.log(2) - np.log(w * h)
    close(nats.mean(), held.results["LL_nats"])


def test_against_densities(held: Golden) -> None:
    told = held.results
    pairs = list(zip(held.maps, held.golds, strict=True))
    close([vg.cc(m, g) for m, g in pairs], told["CC"])
    close([vg.sim(m, g) for m, g in pairs], told["SIM"])
    close([vg.kl(m, g) for m, g in pairs], told["KLDiv_default_min1e-20"])
    close([vg.kl(m, g, variant="mit") for m, g in pairs], told["KLDiv_MIT"])
    assert held.maps[0].min() == 0
    close(vg.sim(held.maps[0] - 0.5, held.golds[0]), told["SIM_negative_map"])
    close(
        [vg.sim(3 * held.maps[0], held.golds[0]), vg.sim(held.maps[0] + 1, held.golds[0])],
        told["SIM_of_scaled_plus_offset"],
    )


def test_the_golden_densities_are_ours(held: Golden) -> None:
    for points, gold in zip(held.points, held.golds, strict=True):
        density = vg.fixation_density(points, held.wh, sigma=held.sigma)
        close(density, gold / gold.sum())
        counts = np.zeros(gold.shape)
        np.add.at(counts, (points[:, 1].astype(int), points[:, 0].astype(int)), 1)
        close(ndimage.gaussian_filter(counts, held.sigma, mode="nearest"), gold)


def test_histograms(held: Golden) -> None:
    close(vg.fixation_kl(held.maps, held.points), held.results["fixation_based_KL_uniform_10bins"])
    others = [held.others(i) for i in range(3)]
    close(vg.fixation_kl(held.maps, held.points, others), held.results["fixation_based_KL_shuffled_10bins"])


def test_constant_maps(held: Golden) -> None:
    told, flat, zero = held.results["constant_map"], np.full(held.maps[0].shape, 0.7), np.zeros(held.maps[0].shape)
    gold, points = held.golds[0], held.points[0]
    close(vg.auc(flat, points), told["AUC"])
    close(vg.nss(flat, points), told["NSS"])
    close(vg.cc(flat, gold), told["CC"])
    close([vg.sim(flat, gold), vg.sim(zero, gold)], [told["SIM"], told["SIM_zero_map"]])
    close(vg.kl(zero, gold, variant="mit"), told["KL_MIT_zero"])
    assert np.isnan(vg.cc(flat, zero))


def test_mit_definitions(held: Golden) -> None:
    w, h = held.wh

    def row_major(columns: Any) -> np.ndarray:
        c, r = np.divmod(np.asarray(columns), h)
        return r * w + c

    for told in held.mit["mit_matlab_definitions"]:
        i = told["image"]
        m, p, g = held.maps[i], held.points[i], held.golds[i]
        assert len(np.unique(vg.pixels_of(p, held.wh))) == told["n_unique_fixated_pixels"]
        close(vg.auc_judd(m, p), told["AUC_Judd_no_jitter"])
        pixel = np.unique(vg.pixels_of(p, held.wh))
        once = np.column_stack([pixel % w, pixel // w])
        close(vg.auc(m, once, negatives="unfixated"), told["AUC_mann_whitney_unfixated"])
        borji = told["AUC_Borji_step01"]
        close(vg.auc_borji(m, p, drawn=row_major(borji["index_matrix_column_major_0based"]).T), borji["value"])
        shuffled = told["AUC_shuffled_step01"]
        drawn = row_major(shuffled["indices_column_major_0based"])
        close(vg.auc_shuffled(m, p, held.others(i), variant="mit", drawn=drawn), shuffled["value"])
        close(vg.nss(m, p, variant="mit"), told["NSS"])
        close(vg.nss(m, once), told["NSS_ddof0"])
        close(vg.cc(m, g, variant="mit"), told["CC"])
        close(vg.kl(m, g, variant="mit"), told["KLdiv"])
        close(vg.sim(m, g, variant="mit"), told["similarity"])
        base = np.mean([held.maps[j] for j in range(3) if j != i], axis=0)
        close(vg.information_gain(m, p, base, variant="mit"), told["InfoGain_vs_mean_of_other_maps"])


def test_conditional_of_hat(held: Golden) -> None:
    told = held.mit["hat_conditional"]
    densities = [(m + 0.01) / (m + 0.01).sum() for m in held.maps]

    def all_of(measure: Any, **named: Any) -> float:
        parts = [measure([d] * len(p), p, **named) for d, p in zip(densities, held.points, strict=True)]
        assert sum(map(len, parts)) == told["n"]
        return float(np.concatenate(parts).mean())

    close(all_of(vg.conditional_ig), told["cIG_mean_bits_vs_uniform"])
    close(all_of(vg.conditional_nss), told["cNSS_mean"])
    close(all_of(vg.conditional_auc, variant="hat"), told["cAUC_mean"])
    close(all_of(vg.conditional_auc), told["pysaliency_mean_per_fixation_AUC_uniform"])
