"""``run.detect``, ``run.mentions``, risk in the grounding, and checked answers, on the model that leans on a prior."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

import vlmattn as va
from tests.detection.plain import PICTURE, made
from vlmattn.api import Check
from vlmattn.core.errors import MapError, SpecError
from vlmattn.detection import SCORES, Calibration, Detector, fit_calibration, fit_detector, joined
from vlmattn.faithfulness import DEFAULT_RULE
from vlmattn.hallucination import coco_synonyms

ASKED = "Describe the picture."


@lru_cache(maxsize=1)
def prior() -> va.Vlm:
    return va.load("scene-prior")


@lru_cache(maxsize=2)
def described(index: int = 1) -> va.Run:
    return prior().ask(va.scene.split_item("adversarial", 0, index)[0].image, ASKED)


@lru_cache(maxsize=1)
def detector() -> Detector:
    drawn = [va.scene.split_item("adversarial", 1, n)[0] for n in range(24)]
    runs = prior().ask_many([(scene.image, ASKED) for scene in drawn])
    tables = [
        run.mentions(scene.names, image=str(n), scores=["nll"], features=["heads", "states:3"])
        for n, (scene, run) in enumerate(zip(drawn, runs, strict=True))
    ]
    return fit_detector(joined(tables), features="states:3", source="24 scenes")


@pytest.fixture(autouse=True)
def _no_detector() -> None:
    prior().use_detector(None)


def test_objects_are_those_that_the_answer_names() -> None:
    run, there = described(), va.scene.split_item("adversarial", 0, 1)[0].names
    found = run.detect()
    assert [one.name for one in found.objects] == ["blue square", "red circle", "red cross"]
    table = run.mentions(there, image="one", features=["heads", "states:-1"])
    assert table.hallucinated_n.tolist() == [False, True, False]
    assert table.images == ("one",) * 3
    words = {word.span.char_span: word for word in found.words}
    circle = found.objects[1]
    inside = [w for (a, b), w in words.items() if circle.span.char_span[0] <= a and b <= circle.span.char_span[1]]
    tokens = sum(len(w.span.tokens) for w in inside)
    for name in ("nll", "svar", "glsim", "t_vhd"):
        mean = sum(w.scores[name] * len(w.span.tokens) for w in inside) / tokens
        assert circle.scores[name] == pytest.approx(mean, abs=1e-6)
        assert table.scores[name][1] == pytest.approx(circle.scores[name], abs=1e-6)
    assert circle.position == min(w.position for w in inside)


def test_objects_may_be_phrases_or_a_table() -> None:
    run = made("llava", "Two dogs by a stop light, a dog and a red cup.")
    by_table = run.detect(scores=["nll"], objects=coco_synonyms()).objects
    assert [(o.name, o.text) for o in by_table] == [
        ("dog", "dogs"),
        ("traffic light", "stop light"),
        ("dog", "dog"),
        ("cup", "cup"),
    ]
    assert [o.name for o in run.detect(scores=["nll"]).objects] == ["dog", "traffic light", "dog", "cup"]
    phrases = run.detect(scores=["nll"], objects=["red cup", "a dog"]).objects
    assert [o.text for o in phrases] == ["a dog", "red cup"]
    with pytest.raises(SpecError, match="list of phrases"):
        run.detect(objects="dog")
    with pytest.raises(MapError, match="names no object"):
        made("llava").mentions(["cup"], image="x", objects=["horse"])
    with pytest.raises(SpecError, match="list of objects"):
        run.mentions("dog", image="x")


def test_a_detection_says_where_scores_come_from_and_what_is_missing() -> None:
    found = described().detect()
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(told["scores"]) | set(told["missing"]) == set(SCORES)
    assert all(one["source"] for one in told["scores"].values())
    assert "sinks are not known" in told["missing"]["sink_share"]
    assert {w["risk"] for w in told["words"]} == {None}
    assert "red circle" in str(found)
    assert described().detect(scores=["sink_share"]).missing == {}


def test_made_up_words_score_higher_the_way_the_papers_say() -> None:
    rows = [(va.scene.split_item("adversarial", 2, n)[0], n) for n in range(24)]
    runs = prior().ask_many([(scene.image, ASKED) for scene, _ in rows])
    names = ["nll", "image_share", "lookback", "internal_confidence", "unused_and_unsure"]
    table = joined([r.mentions(s.names, image=str(n), scores=names) for (s, n), r in zip(rows, runs, strict=True)])
    wrong = table.hallucinated_n
    assert 8 < wrong.sum() < len(table) / 2
    for name in names:
        values = table.scores[name]
        assert (values[wrong][:, None] > values[~wrong][None]).mean() > 0.6, name


def test_risk_is_that_of_the_detector_on_the_words_of_the_answer() -> None:
    run, judge = described(), detector()
    found = run.detect(scores=["nll"], by=judge)
    table = run.mentions(["blue square"], image="test", scores=[], features=["states:3"])
    np.testing.assert_allclose([o.risk for o in found.objects], judge.risk(table), atol=1e-6)
    assert "24 scenes" in found.calibration
    assert found.objects[1].risk == max(o.risk or 0 for o in found.objects)
    by_score = run.detect(scores=[], by=fit_calibration("nll", [0.1, 0.2, 2.0], [False, False, True], source="three"))
    assert by_score.words[0].scores == {}
    assert by_score.calibration == "Platt scaling of nll, three"


def test_the_grounding_tells_the_risk_and_what_it_goes_by() -> None:
    run, judge = described(), detector()
    plain = run.grounding()
    assert {one.risk for one in plain} == {None}
    assert "risk" not in plain[0].to_dict()
    with pytest.raises(SpecError, match="needs a detector or a calibration"):
        run.grounding(risk=True)
    prior().use_detector(judge)
    found = run.grounding(risk=True)
    assert [one.risk for one in found] == pytest.approx([w.risk for w in run.detect(scores=["nll"]).words], abs=1e-9)
    assert {one.calibration for one in found} == {judge.told}
    assert found[1].to_dict()["risk"] == found[1].risk
    assert [one.shares for one in found] == [one.shares for one in plain]


def test_a_detector_of_another_model_is_refused(tmp_path: Path) -> None:
    place = detector().save(tmp_path / "d.safetensors")
    prior().use_detector(place)
    assert isinstance(prior().detector, Detector)
    scene = va.load("scene")
    with pytest.raises(SpecError, match="fitted on 'scene-prior'"):
        scene.use_detector(place)
    with pytest.raises(SpecError, match="fitted on 'scene-prior'"):
        made("llava").detect(by=detector())
    with pytest.raises(SpecError, match="fitted on 'scene-prior'"):
        scene.ask(PICTURE, ASKED, check=Check(by=detector()))
    with pytest.raises(SpecError, match="none of the scores"):
        prior().use_detector(Calibration("charm", 1.0, 0.0, ""))
    with pytest.raises(SpecError, match="a Detector or a Calibration"):
        prior().use_detector(3)  # type: ignore[arg-type]
    assert scene.detector is None


def test_unsupported_objects_are_marked() -> None:
    picture = va.scene.split_item("adversarial", 0, 1)[0].image
    run = prior().ask(picture, ASKED, check=Check(by=DEFAULT_RULE))
    assert run.checked is not None
    assert run.checked.unsupported == ("red circle",)
    assert run.checked.marked == "a blue square, a [red circle?], a red cross"
    assert run.checked.answer == run.answer
    assert DEFAULT_RULE.source in run.checked.calibration
    assert json.loads(json.dumps(run.checked.to_dict()))["words"][1]["unsupported"] is True
    assert prior().ask(picture, ASKED).checked is None


def test_a_check_goes_by_the_detector_of_the_model() -> None:
    prior().use_detector(detector())
    picture = va.scene.split_item("adversarial", 0, 1)[0].image
    run = prior().ask(picture, ASKED, check=True)
    assert run.checked is not None
    assert run.checked.calibration == detector().told
    risks = [o.risk for o in run.detect(scores=["nll"]).objects]
    np.testing.assert_allclose([w.risk for w in run.checked.words], risks, atol=1e-9)
    for threshold in (0.01, 0.5, 0.99):
        again = prior().ask(picture, ASKED, check=Check(threshold=threshold)).checked
        assert again is not None
        assert [w.unsupported for w in again.words] == [r is not None and r >= threshold for r in risks]


def test_an_unsupported_answer_can_be_refused_looked_at_again_or_steered() -> None:
    picture = va.scene.split_item("adversarial", 0, 1)[0].image
    refused = prior().ask(picture, ASKED, check=Check(by=DEFAULT_RULE, then="abstain"))
    assert refused.checked is not None
    assert refused.checked.answer == "I cannot tell from the picture."
    assert str(refused.checked).startswith("I cannot tell")
    assert refused.answer == described().answer
    closer = prior().ask(picture, ASKED, check=Check(by=DEFAULT_RULE, then="look_again"))
    assert closer.checked is not None
    assert closer.checked.first is not None
    assert closer.checked.first.answer == described().answer
    assert closer.answer == described().ask_again().answer
    heads = va.steering.ScaleHeads(((3, 0), (3, 1), (3, 2)), 0.0)
    other = prior().ask(
        picture, ASKED, max_new_tokens=12, check=Check(by=DEFAULT_RULE, then="steer", steering=(heads,))
    )
    assert other.checked is not None
    assert other.answer == prior().ask(picture, ASKED, max_new_tokens=12, steering=[heads]).answer
    plain = prior().ask(picture, ASKED, answer=other.trace.layout.input_ids[other.trace.layout.answer_start :].tolist())
    first = plain.grounding(test=True)[0]
    whole = Check(by=DEFAULT_RULE, of="words")
    told = prior().ask(picture, ASKED, max_new_tokens=12, steering=[heads], check=whole).checked
    assert told is not None
    assert first.chance is not None
    assert told.words[0].risk == pytest.approx(1 - first.chance, abs=1e-6)


def test_a_supported_answer_is_left_alone() -> None:
    scene, _ = va.scene.split_item("adversarial", 0, 0)
    sure = Check(then="abstain", threshold=0.999999, by=Calibration("nll", 0.0, -5.0, "never"))
    run = prior().ask(scene.image, ASKED, check=sure)
    assert run.checked is not None
    assert (run.checked.then, run.checked.answer, run.checked.first) == ("mark", run.answer, None)
    assert run.checked.marked == run.answer


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"then": "guess"}, "then must be one of mark, abstain"),
        ({"threshold": 1.0}, "threshold must be above 0"),
        ({"of": "letters"}, "of must be 'objects' or 'words'"),
        ({"by": 3}, "checked by a Detector"),
        ({"then": "steer"}, "give both, or neither"),
        ({"steering": (va.steering.ScaleHeads(((0, 0),), 0.5),)}, "give both, or neither"),
    ],
)
def test_checks_that_cannot_be_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Check(**options)  # type: ignore[arg-type]


def test_a_check_must_be_one() -> None:
    with pytest.raises(SpecError, match="check must be True, False or a Check"):
        prior().ask(PICTURE, ASKED, check="yes")  # type: ignore[arg-type]


def test_features_that_do_not_exist_are_refused() -> None:
    for kind, said in (
        ("eyes", "must be 'heads' or states:LAYER"),
        ("states:x", "with a number"),
        ("states:9", "layer 9"),
    ):
        with pytest.raises(SpecError, match=said):
            described().mentions(["red cross"], image="a", features=[kind])


def test_a_steered_run_has_the_scores_of_its_own_rows_only() -> None:
    heads = va.steering.ScaleHeads(((3, 0),), 0.5)
    run = prior().ask(va.scene.split_item("adversarial", 0, 1)[0].image, ASKED, steering=[heads])
    found = run.detect()
    assert {"nll", "svar"} <= set(found.specs)
    assert "ask without steering" in found.missing["glsim"]


def test_what_is_asked_about_is_read_where_it_stands() -> None:
    scene, _ = va.scene.split_item("adversarial", 0, 1)
    for thing in ("blue square", "red circle"):
        run = prior().ask(scene.image, f"Is there a {thing} in the picture?")
        found = run.detect(scores=["nll"], about=thing).about
        assert found is not None
        assert (found.text, found.position < 0) == (thing, True)
        by_first = run.internal_confidence(thing, part="question")
        span = run.trace.find(thing)
        first = prior().adapter.tokenizer.decode([int(run.trace.layout.input_ids[span.tokens[0]])])
        assert first.strip() in thing
        one = run.detect(scores=["nll"], about=thing, over_tokens="first").about
        assert one is not None
        assert one.scores["internal_confidence"] == pytest.approx(-by_first, abs=1e-6)
    assert described().detect(scores=["nll"]).about is None
    with pytest.raises(va.errors.WordNotFound):
        described().detect(about="zebra")


def test_the_command_checks_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vlmattn.cli.main import main

    picture, place = tmp_path / "scene.png", detector().save(tmp_path / "d.safetensors")
    va.scene.split_item("adversarial", 0, 1)[0].image.save(picture)
    asked = ["ask", str(picture), ASKED, "--model", "scene-prior", "--max-new-tokens", "12"]
    for more, code in ((["--check", "--detector", str(place), "--json"], 0), (["--detector", str(place)], 2)):
        with pytest.raises(SystemExit) as done:
            main([*asked, *more])
        assert done.value.code == code
    out, err = capsys.readouterr()
    told = json.loads(out)["checked"]
    assert told["calibration"] == detector().told
    assert [w["text"] for w in told["words"]][:1] == ["blue square"]
    assert "give both" in err


def test_a_pass_that_fails_is_not_tried_again() -> None:
    from vlmattn.detection import Seen

    tried = []

    def fail() -> None:
        tried.append(1)
        raise MapError("no such states")

    run = described()
    one = Seen(run.trace, run.trace.answer_tokens[:2], 10, {"states": fail})
    for name in ("glsim", "viser", "internal_confidence"):
        with pytest.raises(MapError, match="no such states"):
            SCORES[name].of(one)
    assert len(tried) == 1
