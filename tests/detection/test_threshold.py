"""Thresholds that keep recall, the shipped detector, and checks of several answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vlmattn as va
from vlmattn.api import Check
from vlmattn.api.detected import model_key
from vlmattn.core.errors import SpecError
from vlmattn.detection import (
    RECALL,
    Detector,
    MentionTable,
    ModelKey,
    Threshold,
    fit_calibration,
    fit_detector,
    shipped_detector,
    shipped_detectors,
    threshold_for_recall,
)
from vlmattn.faithfulness import DEFAULT_RULE

ASKED = "Describe the picture."


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40),
    st.sampled_from([0.0, 0.005, 0.1, 0.5]),
)
def test_it_is_the_lowest_that_loses_no_more(cases: list[tuple[float, bool]], lost: float) -> None:
    risk, wrong = np.array([r for r, _ in cases]), np.array([w for _, w in cases])
    if wrong.all() or not wrong.any():
        with pytest.raises(SpecError):
            threshold_for_recall(risk, wrong.tolist(), lost=lost)
        return
    found = threshold_for_recall(risk, wrong.tolist(), lost=lost)
    flagged = risk >= found.value
    assert found.lost == (flagged & ~wrong).sum() / (~wrong).sum() <= lost
    assert found.caught == (flagged & wrong).sum() / wrong.sum()
    lower = sorted({float(r) for r in risk if r < found.value})
    if lower and lower[-1] > 0:  # one step lower costs too much
        assert ((risk >= lower[-1]) & ~wrong).sum() > lost * (~wrong).sum() - 1e-9


@pytest.mark.parametrize(
    ("risk", "wrong", "options", "said"),
    [
        ([0.1], [True, False], {}, "one risk for every outcome"),
        ([0.1, 2.0], [True, False], {}, "chances from 0 to 1"),
        ([0.1, 0.2], [True, False], {"lost": 1.0}, "lost must be"),
        ([0.1, 0.2], [True, True], {}, "one outcome"),
    ],
)
def test_thresholds_that_cannot_be(risk: Any, wrong: Any, options: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        threshold_for_recall(risk, wrong, **options)
    with pytest.raises(SpecError, match="must be above 0"):
        Threshold(0.0, 0, 0, 1)


def test_words_without_a_risk_are_kept() -> None:
    found = threshold_for_recall([0.2, np.nan, 0.9], [False, True, True])
    assert (found.value, found.caught) == (0.55, 0.5)


def test_a_fitted_detector_knows_its_thresholds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(120) < 0.4
    key = ModelKey("m", "llava", 2, (4, 4), 8)
    table = MentionTable(
        key, tuple(str(n // 4) for n in range(120)), ("x",) * 120, np.arange(120), wrong,
        {}, {"heads": (rng.standard_normal((120, 3)) + 1.2 * wrong[:, None]).astype(np.float32)},
    )  # fmt: skip
    made = fit_detector(table, features="heads", source="by hand")
    again = Detector.load(made.save(tmp_path / "d.safetensors"))
    for name, lost in RECALL.items():
        assert again.threshold(name) == made.threshold(name)
        assert made.threshold(name).lost <= lost
        assert made.threshold(name).words == 120
    assert 0 < made.threshold("recall").caught < 1
    assert made.threshold("recall-0.005").value <= made.threshold("recall").value
    with pytest.raises(SpecError, match=r"no threshold 'precision'; it has recall, recall-0\.005"):
        made.threshold("precision")


@pytest.fixture(scope="module")
def prior() -> va.Vlm:
    return va.load("scene-prior")


def test_the_shipped_detectors_are_of_the_model_in_the_box(prior: va.Vlm) -> None:
    assert shipped_detectors() == (("scene-prior", "claims"), ("scene-prior", "things"))
    for kind in ("claims", "things"):
        found = shipped_detector("scene-prior", kind)
        assert found.model == model_key(prior)
        assert all("-5-" in image for image in found.manifest["images"])  # no scene of seeds 0 to 4
        assert found.manifest["words"] > 100
        with pytest.raises(SpecError, match="there are claims of scene-prior"):
            shipped_detector("scene", kind)
        with pytest.raises(SpecError, match="fitted on 'scene-prior'"):
            va.load("scene").use_detector(found)


def test_checks_go_by_them_without_being_told(prior: va.Vlm) -> None:
    scene, _ = va.scene.split_item("adversarial", 0, 1)
    things, claims = (shipped_detector("scene-prior", kind) for kind in ("things", "claims"))
    run = prior.ask(scene.image, ASKED, check=True)
    assert run.checked is not None
    assert run.checked.calibration == things.told
    by_hand = run.detect(by=things, scores=())
    assert [w.risk for w in run.checked.words] == pytest.approx([o.risk for o in by_hand.objects], abs=1e-6)
    named = prior.ask(scene.image, ASKED, check=Check(threshold="recall")).checked
    assert named is not None
    limit = things.threshold("recall").value
    assert [w.unsupported for w in named.words] == [w.risk is not None and w.risk >= limit for w in named.words]
    said = prior.ask(scene.image, "Is there a red circle in the picture?", answer="yes", check=True).checked
    assert said is not None
    assert said.calibration == claims.told
    assert said.unsupported == ("yes",)
    other = prior.ask(scene.image, "Is there a red circle in the picture?", answer="no", check=True).checked
    assert other is not None
    assert DEFAULT_RULE.source in other.calibration  # a *no* is nothing that they were fitted on
    score = fit_calibration("nll", [0.1, 0.2, 2.0], [False, False, True], source="three")
    with pytest.raises(SpecError, match="goes by none"):
        prior.ask(scene.image, ASKED, check=Check(by=score, threshold="recall"))
    with pytest.raises(SpecError, match="goes by none"):
        va.load("scene").ask(scene.image, ASKED, check=Check(threshold="recall"))
    with pytest.raises(SpecError, match="no threshold 'all'"):
        prior.ask(scene.image, ASKED, check=Check(threshold="all"))


def test_every_item_of_a_batch_has_its_check(prior: va.Vlm) -> None:
    drawn = [va.scene.split_item("adversarial", 0, n)[0] for n in (1, 0, 2)]
    items = [(scene.image, ASKED) for scene in drawn]
    heads = va.steering.ScaleHeads(((3, 0), (3, 1), (3, 2)), 0.0)
    again = Check(then="steer", steering=(heads,), threshold=0.001)
    refuse = Check(then="abstain", threshold=0.001)
    alone = [
        prior.ask(*item, max_new_tokens=12, check=one) for item, one in zip(items, (again, refuse, again), strict=True)
    ]
    asked: list[list[Any]] = []
    real = type(prior).run

    def counted(self: va.Vlm, request: Any) -> Any:
        asked.append([request.items, bool(request.steering)])
        return real(self, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(prior), "run", counted)
        found = prior.ask_many(items, max_new_tokens=12, check=[again, refuse, again])
    assert [run.answer for run in found] == [run.answer for run in alone]
    assert [run.checked.to_dict()["then"] for run in found] == ["steer", "abstain", "steer"]  # type: ignore[union-attr]
    assert [w.text for w in found[2].checked.words] == [w.text for w in alone[2].checked.words]  # type: ignore[union-attr]
    assert found[0].checked.first.answer == prior.ask(*items[0], max_new_tokens=12).answer  # type: ignore[union-attr]
    assert [len(some) for some, steered in asked if steered] == [2]  # both second answers in one batch
    everyone = prior.ask_many(items[:2], max_new_tokens=12, check=True)
    assert all(run.checked is not None for run in everyone)
    assert [run.checked for run in prior.ask_many(items[:2], max_new_tokens=4, check=[False, False])] == [None, None]
    with pytest.raises(SpecError, match="came with 1 checks"):
        prior.ask_many(items[:2], check=[True])
