"""What the service answers: equal to the library's own, and one kind of error for everything else."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmattn as va
from vlmattn.api import Look
from vlmattn.core.errors import BudgetExceeded, CaptureError, DependencyMissing, UnsupportedModel
from vlmattn.detection import Calibration
from vlmattn.overlay import read_provenance
from vlmattn.service.errors import Refused, refusal_of

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from vlmattn.service import ServiceOptions, create_app
from vlmattn.service.routes import preferred
from vlmattn.service.telling import _word

TOKEN = "a-token-of-this-test"
QUESTION = "How many objects are there?"
OPTIONS = ServiceOptions(max_body=2**20, max_pixels=90_000, max_words=3, max_new_tokens=64)


def png(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


SCENE, _ = va.scene.split_item("test", seed=0, index=9)
FILE = png(SCENE.image)


@pytest.fixture(scope="module")
def vlm() -> va.Vlm:
    return va.load("scene")


@pytest.fixture(scope="module")
def client(vlm: va.Vlm) -> Iterator[TestClient]:
    with TestClient(create_app(vlm, OPTIONS), raise_server_exceptions=False) as found:
        yield found


def ask(client: TestClient, file: bytes = FILE, question: str = QUESTION, **fields: Any) -> Any:
    return client.post("/v1/ask", files={"image": file}, data={"question": question, **fields})


def by_json(client: TestClient, file: bytes = FILE, question: str = QUESTION, **fields: Any) -> Any:
    return client.post("/v1/ask", json={"image": base64.b64encode(file).decode(), "question": question, **fields})


# -- answers -----------------------------------------------------------------------------------------------------------


def test_an_answer_is_that_of_the_library(client: TestClient, vlm: va.Vlm) -> None:
    told, run = ask(client).json(), vlm.ask(SCENE.image, QUESTION)
    assert (told["answer"], told["question"]) == (run.answer, QUESTION)
    words = [word for word in run.words() if any(c.isalnum() for c in word.text)]
    assert [word["text"] for word in told["words"]] == [word.text for word in words]
    for word, span, own in zip(told["words"], words, run.grounding(), strict=True):
        look = run.map(span)
        assert tuple(word["box_xyxy"]) == look.box_xyxy()
        assert tuple(word["peak_xy"]) == look.peak_xy == own.peak_xy
        assert word["image_share"] == pytest.approx(own.image_share, abs=1e-6)
        assert word["log_probability"] == pytest.approx(own.log_probability, abs=1e-5)
        assert (word["risk"], word["verdict"], word["unsupported"], word["note"]) == (None,) * 4
    assert told["provenance"] | {"image": "bytes"} == run.trace.provenance.to_dict() | {"image": "bytes"}
    assert told["picture"] == {"width": SCENE.image.width, "height": SCENE.image.height, "notes": []}
    assert (told["overlay"], told["checked"], told["warning"], told["calibration"], told["refined"]) == (None,) * 5


@pytest.mark.parametrize("path", ["/v1/ask", "/ask"])
def test_json_says_the_same_as_multipart(client: TestClient, path: str) -> None:
    wanted = {"words": ["many objects", "there"], "layers": [1, -1], "heads": [0, 2], "normalise": "uniform"}
    first = ask(client, words=wanted["words"], layers="1,-1", heads="0,2", normalise="uniform")
    second = client.post(path, json={"image": base64.b64encode(FILE).decode(), "question": QUESTION, **wanted})
    assert first.status_code == second.status_code == 200
    told, same = ({k: v for k, v in one.json().items() if k != "seconds"} for one in (first, second))
    assert told == same
    assert told["read"] == {"method": "raw", "layers": [1, -1], "heads": [0, 2], "normalise": "uniform"}


def test_words_and_layers_that_are_asked_for(client: TestClient, vlm: va.Vlm) -> None:
    told, run = (
        ask(client, words="many objects", layers="vicrop", method="relative").json(),
        vlm.ask(SCENE.image, QUESTION),
    )
    (word,) = told["words"]
    look = run.map("many objects", layers="vicrop", method="relative")
    assert (word["text"], word["part"]) == ("many objects", "question")
    assert word["log_probability"] is None
    assert tuple(word["box_xyxy"]) == look.box_xyxy()


def test_a_method_that_covers_patch_after_patch(client: TestClient, vlm: va.Vlm) -> None:
    told = ask(client, answer="7", method="occlusion").json()
    look = vlm.ask(SCENE.image, QUESTION, answer="7").map("7", method="occlusion")
    assert tuple(told["words"][0]["box_xyxy"]) == look.box_xyxy()


def test_a_given_answer_is_read_and_words_beyond_the_limit_are_counted(client: TestClient) -> None:
    told = ask(client, answer="a red cup and a fork").json()
    assert told["answer"] == "a red cup and a fork"
    assert [(w["text"], w["occurrence"], w["of"]) for w in told["words"]] == [("a", 1, 2), ("red", 1, 1), ("cup", 1, 1)]
    assert told["words_left_out"] == 3
    assert "given answer" in told["provenance"]["steps"]


def test_risk_is_by_the_deletion_test_and_says_so(client: TestClient, vlm: va.Vlm) -> None:
    told = ask(client, risk="true", words=["objects", "many"], answer="three objects").json()
    run = vlm.ask(SCENE.image, QUESTION, answer="three objects")
    (own,) = [one for one in run.grounding(test=True) if one.word == "objects"]
    first, question = told["words"]
    assert first["risk"] == pytest.approx(1 - (own.chance or 0), abs=1e-4)
    assert first["verdict"] == own.verdict
    assert first["unsupported"] == (first["risk"] >= 0.5)
    assert (question["part"], question["risk"], question["unsupported"]) == ("question", None, None)
    assert told["calibration"].startswith("deletion test")


@pytest.mark.parametrize(("bias", "warned"), [(50.0, "nothing in the picture supports this answer"), (-50.0, None)])
def test_a_detector_is_named_and_warned_by(client: TestClient, vlm: va.Vlm, bias: float, warned: str | None) -> None:
    vlm.use_detector(Calibration("nll", 1.0, bias, "by hand"))
    try:
        told = ask(client, risk="true", check="true").json()
        assert client.get("/v1/model").json()["detector"] == Calibration("nll", 1.0, bias, "by hand").told
    finally:
        vlm.use_detector(None)
    assert {word["unsupported"] for word in told["words"]} == {warned is not None}
    assert "by hand" in told["calibration"]
    assert "by hand" in told["checked"]["calibration"]
    assert told["warning"] == warned
    assert ("[" in told["checked"]["marked"]) == (warned is not None)


def test_the_overlay_is_the_librarys_in_the_pictures_own_size(client: TestClient, vlm: va.Vlm) -> None:
    told = ask(client, overlay="png", overlay_of="objects").json()["overlay"]
    file = base64.b64decode(told["base64"])
    image = Image.open(io.BytesIO(file))
    assert (told["of"], told["media_type"], told["width"], told["height"]) == ("objects", "image/png", *image.size)
    own = vlm.ask(SCENE.image, QUESTION).map("objects").overlay()
    assert image.tobytes() == own.image.tobytes()
    assert image.size == SCENE.image.size


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_the_drawing_itself_is_sent_to_who_accepts_pictures(client: TestClient, kind: str, tmp_path: Any) -> None:
    found = client.post(
        "/v1/ask",
        files={"image": FILE},
        data={"question": QUESTION, "figure": "true"},
        headers={"Accept": f"image/{kind}, application/json;q=0.5"},
    )
    assert (found.status_code, found.headers["content-type"]) == (200, f"image/{kind}")
    path = tmp_path / f"look.{kind}"
    path.write_bytes(found.content)
    assert read_provenance(path)["provenance"]["question"] == QUESTION
    with Image.open(path) as drawn:
        assert drawn.size[1] > SCENE.image.height


def test_a_second_look_is_told(client: TestClient, vlm: va.Vlm) -> None:
    told, look = ask(client, refine="peak").json()["refined"], vlm.ask(SCENE.image, QUESTION).refine("peak")
    assert tuple(told["box_xyxy"]) == look.box_xyxy
    assert told["answer"] == look.ask_again().answer
    assert 0 < told["box_share"] < 1
    assert 0 < told["certainty"] <= 1


def test_a_turned_photograph_is_told_upright(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = SCENE.image.crop((0, 0, 224, 160)).rotate(90, expand=True)
    told = by_json(client, png(turned, "JPEG", exif=exif.tobytes()), overlay="png").json()
    assert told["picture"] == {"width": 224, "height": 160, "notes": ["EXIF orientation 6 applied"]}
    assert (told["overlay"]["width"], told["overlay"]["height"]) == (224, 160)


def test_a_flat_map_has_no_box_and_says_why(vlm: va.Vlm) -> None:
    run = vlm.ask(SCENE.image, QUESTION, answer="7")
    (span,), (grounded,) = run.words(), run.grounding()
    look = run.map(span)
    flat = replace(look.patch_map, values=tuple(np.ones_like(tile) for tile in look.patch_map.values))
    told = _word(span, grounded, Look(flat, look.picture), None)
    assert (told.box_xyxy, told.peak_xy) == (None, None)
    assert told.note is not None
    assert "flat" in told.note


# -- what is refused ---------------------------------------------------------------------------------------------------

CUT = FILE[: len(FILE) // 2]
BOMB = png(Image.new("L", (400, 400)))


@pytest.mark.parametrize(
    ("status", "code", "text", "fields"),
    [
        (422, "invalid_request", "question: Field required", {"question": None}),
        (422, "invalid_request", "question", {"question": "  "}),
        (422, "invalid_request", "max_new_tokens", {"max_new_tokens": 65}),
        (422, "invalid_request", "max_new_tokens", {"max_new_tokens": "8"}),
        (422, "invalid_request", "check", {"check": 1}),
        (422, "invalid_request", "words: List should have at most 3 items", {"words": ["a", "b", "c", "d"]}),
        (422, "invalid_request", "method: Input should be 'raw'", {"method": "psychic"}),
        (422, "invalid_request", "refine", {"refine": "nonsense"}),
        (422, "invalid_request", "url: Extra inputs are not permitted", {"url": "http://example.org/a.png"}),
        (422, "option_unusable", "layers 4 does not exist: the model has 0 to 3", {"layers": [4]}),
        (422, "option_unusable", "heads -7 does not exist", {"heads": [-7]}),
        (422, "option_unusable", "head preset 'nonsense' does not exist", {"heads": "nonsense"}),
        (422, "word_not_found", "'unicorn' does not occur", {"words": ["unicorn"]}),
        (422, "word_not_found", "'unicorn' does not occur", {"overlay_of": "unicorn", "overlay": "png"}),
        (422, "question_unusable", "'<image>'", {"question": "what is <image>?"}),
        (400, "base64_broken", "addresses and paths are never read", {"image": "http://example.org/a.png"}),
        (400, "base64_broken", "not base64", {"image": "/etc/passwd"}),
        (415, "picture_unknown", "not a picture of a known format", {"image": base64.b64encode(b"garbage").decode()}),
        (422, "picture_unusable", "image is damaged or cut off", {"image": base64.b64encode(CUT).decode()}),
        (413, "picture_too_large", "400x400 = 160,000 pixels, over", {"image": base64.b64encode(BOMB).decode()}),
        (413, "body_too_large", "over the limit of 1,048,576 bytes", {"image": "A" * 2**20}),
    ],
)  # fmt: skip
def test_bad_fields_are_told_in_one_line(
    client: TestClient, status: int, code: str, text: str, fields: dict[str, Any]
) -> None:
    body = {"image": base64.b64encode(FILE).decode(), "question": QUESTION} | fields
    found = client.post("/v1/ask", json={name: value for name, value in body.items() if value is not None})
    assert (found.status_code, found.json()["error"]) == (status, code), found.text
    assert text in found.json()["message"]
    assert "\n" not in found.json()["message"]


@pytest.mark.parametrize(
    ("status", "code", "sent"),
    [
        (415, "content_type_unsupported", {"content": b"x", "headers": {"content-type": "text/plain"}}),
        (415, "content_type_unsupported", {"content": b"x"}),
        (415, "encoding_unsupported", {"content": b"x", "headers": {"content-encoding": "gzip"}}),
        (400, "json_broken", {"content": b'{"question"', "headers": {"content-type": "application/json"}}),
        (400, "json_broken", {"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}),
        (400, "json_broken", {"content": b'{"a": "\\ud800"}', "headers": {"content-type": "application/json"}}),
        (400, "json_broken", {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}),
        (422, "invalid_request", {"content": b"[]", "headers": {"content-type": "application/json"}}),
        (400, "multipart_broken", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
        (400, "multipart_broken", {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}),
        (422, "invalid_request", {"data": {"question": "a"}, "files": {"picture": FILE}}),
        (422, "invalid_request", {"data": {"question": "a", "image": "text"}, "files": {"other": FILE}}),
        (422, "invalid_request", {"data": {"question": ["a", "b"]}, "files": {"image": FILE}}),
        (422, "invalid_request", {"data": {"question": "a", "layers": ["1", "x"]}, "files": {"image": FILE}}),
        (422, "invalid_request", {"data": {"question": "a", "layers": "1-3"}, "files": {"image": FILE}}),
        (422, "invalid_request", {"data": {"question": "a", "max_new_tokens": "many"}, "files": {"image": FILE}}),
        (403, "origin_not_allowed", {"headers": {"origin": "http://example.org"}}),
    ],
)
def test_bad_bodies_are_told_in_one_line(client: TestClient, status: int, code: str, sent: dict[str, Any]) -> None:
    found = client.post("/v1/ask", **sent)
    assert (found.status_code, found.json()["error"]) == (status, code), found.text


def test_paths_and_methods_that_do_not_exist(client: TestClient) -> None:
    assert client.get("/nothing").json() == {"error": "not_found", "message": "there is no such path", "fields": []}
    found = client.get("/v1/ask")
    assert (found.status_code, found.headers["allow"], found.json()["error"]) == (405, "POST", "method_not_allowed")


def test_what_was_not_foreseen_is_told_without_a_word_of_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr("vlmattn.service.asking._asked", broken)
    found = ask(client)
    assert (found.status_code, found.json()["error"]) == (500, "internal_error")
    assert "secret" not in found.text
    assert "secret of the house" in caplog.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BudgetExceeded("too much"), 422, "over_budget"),
        (UnsupportedModel("no tower"), 422, "not_with_this_model"),
        (DependencyMissing("install captum"), 501, "library_missing"),
        (CaptureError("NaN"), 500, "model_failed"),
        (Refused(418, "teapot", "no"), 418, "teapot"),
    ],
)
def test_errors_of_the_library_keep_their_text(error: Exception, status: int, code: str) -> None:
    found = refusal_of(error)
    assert (found.status, found.code) == (status, code)
    assert found.message == str(error)


def test_text_that_no_file_can_carry_is_told_all_the_same() -> None:
    assert Refused(422, "x", "half \ud800\n of\x00 it").message == "half ? of it"


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_counts_name_what_happened_and_nothing_that_clients_made_up(client: TestClient) -> None:
    client.get("/made-up-path-1")
    client.request("BREW", "/made-up-path-2")
    text = client.get("/metrics").text
    assert "made-up" not in text
    assert "BREW" not in text
    assert 'vlmattn_requests_total{path="/v1/ask",method="POST",status="200"}' in text
    assert 'vlmattn_refused_total{reason="word_not_found"}' in text
    assert "vlmattn_ready 1" in text
    assert "vlmattn_requests_in_hand 0" in text


def test_the_model_and_the_limits_are_told(client: TestClient) -> None:
    told = client.get("/v1/model").json()
    assert told["model"]["layers"] == [0, 1, 2, 3]
    assert told["limits"]["max_words"] == 3
    assert "token" not in told["limits"]
    assert {"pointing", "ad_hh"} <= set(told["head_presets"])
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_a_token_is_asked_for_everywhere_but_for_health(vlm: va.Vlm) -> None:
    with TestClient(create_app(vlm, ServiceOptions(token=TOKEN))) as client:
        for path in ("/v1/model", "/metrics", "/openapi.json"):
            refused = client.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            for wrong in ("Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ü"):
                headers = {"Authorization": wrong.encode("latin-1")}
                assert client.get(path, headers=headers).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert ask(client).status_code == 401
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        document = client.get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    assert document["paths"]["/v1/ask"]["post"]["security"] == [{"token": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []


def test_only_pages_of_allowed_origins_may_ask(vlm: va.Vlm) -> None:
    with TestClient(create_app(vlm, ServiceOptions(allow_origins=("https://a.example",)))) as client:
        for origin, status in (("https://a.example", 422), ("https://b.example", 403)):
            found = client.post("/v1/ask", json={}, headers={"Origin": origin})
            assert found.status_code == status
            assert (found.headers.get("access-control-allow-origin") == origin) == (status == 422)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", None),
        ("*/*", None),
        ("image/png", "image/png"),
        ("application/json, image/png", None),
        ("image/webp;q=0.8, image/png;q=0.9", "image/png"),
        ("image/png;q=0", None),
        ("image/png;q=x, text/html", None),
        ("text/html", None),
    ],
)
def test_the_kind_of_answer_that_is_preferred(accept: str, kind: str | None) -> None:
    assert preferred(accept) == kind


def test_the_document_names_every_status_and_the_limits(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    post = document["paths"]["/v1/ask"]["post"]
    assert {int(s) for s in post["responses"]} >= {200, 400, 413, 415, 422, 429, 503, 504}
    for status, answer in post["responses"].items():
        schema = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert schema == ("Answer" if status == "200" else "Error")
    form = document["components"]["schemas"]["AskForm"]["properties"]
    assert form["max_new_tokens"]["maximum"] == 64
    assert form["words"]["maxItems"] == 3
    assert not math.isnan(document["components"]["schemas"]["AskJson"]["properties"]["max_new_tokens"]["default"])
    assert {"/v1/ask", "/v1/model", "/healthz", "/readyz", "/metrics"} == set(document["paths"])
