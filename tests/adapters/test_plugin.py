"""A package that adds a family is installed for real, found by its entry point, and used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).resolve().parents[1] / "plugin"

USE = """
import warnings

warnings.simplefilter("error")
from vlmattn.adapters import families

assert "sample_vlm" in [family.name for family in families()]

import sample_vlm
from tests.tiny_models import build
import vlmattn as va
from vlmattn.adapters import check_adapter

like, processor = build("llava", tower="siglip")
config = sample_vlm.SampleVlmConfig(**{k: v for k, v in like.config.to_dict().items() if k != "model_type"})
model = sample_vlm.SampleVlmForConditionalGeneration(config).eval()
assert check_adapter(model, processor).ok
folder = __import__("sys").argv[1]
model.save_pretrained(folder)
processor.save_pretrained(folder)
vlm = va.load(folder)
assert vlm.family == "sample_vlm", vlm.family
assert vlm.verify().passed
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed, made by pip from a wheel built here."""
    pytest.importorskip("hatchling")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run([*command, "--target", str(target), str(PLUGIN)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_package_adds_a_family(site: Path, tmp_path: Path) -> None:
    assert list(site.glob("sample_vlm-*.dist-info/entry_points.txt"))
    root = PLUGIN.parents[1]
    paths = os.pathsep.join([str(root), str(site)])
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "model")],
        env=os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
