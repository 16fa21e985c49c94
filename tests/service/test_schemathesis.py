"""The service does what its OpenAPI document says, whatever is sent."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

import vlmattn as va

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip("schemathesis")

from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

from vlmattn.service import ServiceOptions, create_app  # noqa: E402

MEANING = ("word_not_found", "option_unusable", "question_unusable", "no_map", "not_with_this_model", "over_budget")
"""Refusals that no schema can tell beforehand: they depend on the answer, the model, or on two fields together."""


def _file(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((24, 20)).convert("RGB").save(stream, kind)
    return stream.getvalue()


FILES = [_file(kind) for kind in ("PNG", "JPEG", "WEBP")]
schemathesis.openapi.format(
    "picture-in-base64", st.sampled_from(FILES).map(lambda file: base64.b64encode(file).decode())
)
schemathesis.openapi.format("picture", st.sampled_from(FILES))


APP = create_app(lambda: va.load("scene"), ServiceOptions(max_new_tokens=3, max_words=4, timeout=120))


schema = schemathesis.openapi.from_dict(APP.openapi())
schema.app = APP


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    # Schemathesis starts the application with its first request, and would find it loading.
    APP.state.desk._vlm = va.load("scene")
    APP.state.desk.worker._run = _quickly


def _quickly(jobs: Any) -> Any:
    """Methods that run a picture many times are asked for in test_contract; here they would take minutes."""
    for job in jobs:
        if job.payload.asked.method in ("occlusion", "integrated_gradients"):
            job.payload.asked.method = "raw"
    return APP.state.desk._run(jobs)


@schema.parametrize()
@settings(max_examples=5, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_everything_is_as_documented(case: Any) -> None:
    response = case.call(timeout=120)
    by_meaning = response.status_code == 422 and response.json()["error"] in MEANING
    case.validate_response(response, excluded_checks=[positive_data_acceptance] if by_meaning else [])
