"""The guide runs, and names every path, field, status and limit that there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from vlmattn.service import ServiceOptions, create_app
from vlmattn.service.errors import STATUSES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "service.md").read_text(encoding="utf-8")


def test_the_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "guide"}
    exec(compile(block, "service.md", "exec"), names)
    assert isinstance(names["told"], dict)
    assert names["told"]["overlay"]["media_type"] == "image/png"


def test_the_guide_names_everything() -> None:
    document = create_app(lambda: pytest.fail("nothing is loaded"), ServiceOptions()).openapi()
    schemas = document["components"]["schemas"]
    for name in (*schemas["AskJson"]["properties"], *schemas["Answer"]["properties"], *document["paths"]):
        assert f"`{name}`" in TEXT or f" {name}`" in TEXT, name
    rows = " ".join(re.findall(r"^\| ([0-9, ]+) \|", TEXT, flags=re.MULTILINE))
    assert {int(status) for status in re.findall(r"\d+", rows)} == set(STATUSES)
    for one in fields(ServiceOptions):
        option = {"token": "token-file", "allow_origins": "allow-origin", "batch_wait": "batch-wait-ms"}.get(one.name)
        assert f"--{option or one.name.replace('_', '-')}" in TEXT, one.name
