"""Which settings leave the model as it is: those that do, and those of which one alone does not."""

from __future__ import annotations

from typing import Any

import pytest

import vlmattn as va
from vlmattn.core.images import load_image
from vlmattn.steering import DAGCD, DAMRO, ICD, M3ID, PAINT, SPIN, VAF, VCD, DeCo, DoLa, PAIContrast

LOGITS: dict[str, Any] = {
    "VCD": VCD(alpha=0, beta=0),
    "ICD": ICD(alpha=0, beta=0),
    "PAI's contrast": PAIContrast(gamma=1, beta=0),
    "M3ID, no forgetting": M3ID(forgetting=0, beta=0),
    "M3ID, never": M3ID(theta=0, beta=0),
    "DAMRO": DAMRO(alpha=0, beta=0),
    "DoLa": DoLa(alpha=0, beta=0),
    "DeCo": DeCo(alpha=0, top_p=1, top_k=None),
    "DAGCD": DAGCD(heads=((1, 0),), weights=(1.0,), alpha=0),
}


@pytest.fixture(scope="module")
def vlm() -> va.Vlm:
    return va.load("scene")


@pytest.mark.parametrize("name", LOGITS)
def test_neutral_methods_at_the_logits_hand_out_nothing(vlm: va.Vlm, name: str) -> None:
    scene, questions = va.scene.split_item("test", seed=0, index=3)
    encoded = vlm.encode([(load_image(scene.image),)], [questions[0].text])
    method = LOGITS[name].for_model(vlm)
    assert method.neutral
    with method.writing(vlm.model, encoded) as processor:
        assert processor is None


@pytest.mark.parametrize(
    "method",
    [
        VAF(enhance=1, suppress=0.5),
        VAF(enhance=1.5, suppress=1),
        SPIN(keep=0.9, factor=0.5),
        PAINT(alpha=0, beta=0.1),
        PAINT(alpha=0.1, beta=0),
        VCD(alpha=0, beta=0.1),
        VCD(alpha=0.1, beta=0),
        ICD(alpha=0, beta=0.1),
        PAIContrast(gamma=1, beta=0.1),
        PAIContrast(gamma=1.1, beta=0),
        M3ID(forgetting=0.1, theta=0.5, beta=0),
        M3ID(forgetting=0, beta=0.1),
        DAMRO(alpha=0, beta=0.1),
        DoLa(alpha=0, beta=0.1),
        DeCo(alpha=0, top_p=0.9, top_k=None),
        DeCo(alpha=0, top_p=1, top_k=5),
    ],
    ids=lambda method: method.describe(),
)
def test_one_setting_alone_is_enough_to_act(method: Any) -> None:
    assert not method.neutral
