"""VHR against two whole passes that are redone for every layer, with the heads chosen so far scaled by hooks."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch

from tests.steering.plain_contrast import QUESTIONS, alone, encoded_of, vlm_of
from tests.steering.test_contrast import text_alone
from vlmattn.capture import Session, door, model_sites
from vlmattn.steering import VHR

FAMILIES = ("llava", "llava_next", "qwen2_vl", "gemma3")
ALPHA = 3.0


class Scaled:
    """Passes whose heads are scaled before W_O, noting what enters it."""

    def __init__(self, vlm: Any) -> None:
        self.vlm, self.chosen = vlm, dict[int, list[int]]()
        self.found: dict[int, torch.Tensor] = {}

    def __call__(self, inputs: dict[str, Any]) -> torch.Tensor:
        self.found = {}
        with ExitStack() as stack, torch.no_grad():
            for site in model_sites(self.vlm.model).attention:
                hook = site.output_projection.register_forward_pre_hook(self._hook(site))
                stack.callback(hook.remove)
            return self.vlm.model(**inputs, use_cache=False).logits[0]

    def _hook(self, site: Any) -> Any:
        def scale(_module: Any, args: Any) -> Any:
            states = args[0].reshape(*args[0].shape[:2], site.heads, -1).clone()
            self.found[site.layer_idx] = states[0, -1].double()
            for head in self.chosen.get(site.layer_idx, []):
                states[:, :, head] *= ALPHA
            return (states.reshape(args[0].shape),)

        return scale


def choose(scaled: Scaled, picture: dict[str, Any], text: dict[str, Any], layers: list[int]) -> None:
    for layer in layers:
        scaled(picture)
        seen = scaled.found[layer]
        scaled(text)
        blind = scaled.found[layer]
        vhd = [float((a - b).norm()) for a, b in zip(seen, blind, strict=True)]
        energy = [float((b * b).sum()) for b in blind]
        cuts = [float(np.mean(v) + np.std(v)) for v in (vhd, energy)]
        vhd = [0.0 if v > cuts[0] and e > cuts[1] else v for v, e in zip(vhd, energy, strict=True)]
        scaled.chosen[layer] = [h for h, v in enumerate(vhd) if v > float(np.median(vhd))]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_of_a_batch_equals_the_plain_computation(family: str) -> None:
    vlm, layers = vlm_of(family), [0, 1, 2]
    encoded = encoded_of(vlm, *QUESTIONS)
    method = VHR(alpha=ALPHA, layers=tuple(layers)).for_model(vlm)
    method.edit_input(encoded)
    how = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    how |= {"pad_token_id": 0, "eos_token_id": None}
    threads = threading.active_count()
    with Session(vlm.model, encoded.layouts, None, [method], pad_left=encoded.pad_left), torch.no_grad():
        out = vlm.model.generate(**encoded.inputs, **how)
    assert threading.active_count() == threads
    before = vlm.model.generate(**encoded.inputs, **how)
    assert (out.logits[0] - before.logits[0]).abs().max() > 1e-2, "nothing was changed"
    prompt, clean = encoded.inputs["input_ids"].shape[1], [alone(vlm, n) for n in range(2)]
    for number in range(2):
        scaled = Scaled(vlm)
        choose(scaled, clean[number], text_alone(vlm, clean, number), layers)
        assert any(0 < len(heads) < 4 for heads in scaled.chosen.values())
        for step in range(4):
            given, written = dict(clean[number]), out.sequences[number, prompt : prompt + step]
            width = given["input_ids"].shape[1]
            for name, value in clean[number].items():
                if tuple(value.shape) == (1, width):
                    tail = value.new_full((1, step), name == "attention_mask")
                    given[name] = torch.cat([value, written[None] if name == "input_ids" else tail], 1)
            want = scaled(given)[-1]
            assert (out.logits[step][number] - want).abs().max() < 1e-5 * max(1, float(want.abs().max()))


def test_neutral_is_bit_identical_and_beams_share_their_prompts_heads() -> None:
    vlm = vlm_of("llava")
    encoded = encoded_of(vlm, *QUESTIONS)
    how = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    plain = vlm.model.generate(**encoded.inputs, **how)
    found = {}
    for alpha, beams in ((1.0, 1), (2.0, 1), (2.0, 2)):
        method = VHR(alpha=alpha, layers=(1, 2)).for_model(vlm)
        method.edit_input(encoded)
        with Session(vlm.model, encoded.layouts, None, [method], pad_left=encoded.pad_left), torch.no_grad():
            found[alpha, beams] = vlm.model.generate(**encoded.inputs, **how, num_beams=beams)
    assert all(torch.equal(a, b) for a, b in zip(found[1.0, 1].logits, plain.logits, strict=True))
    assert (found[2.0, 2].logits[0][::2] - found[2.0, 1].logits[0]).abs().max() < 1e-4


def test_a_run_that_breaks_off_leaves_no_second_run_behind() -> None:
    vlm = vlm_of("llava")
    encoded = encoded_of(vlm, *QUESTIONS)
    method = VHR(layers=(0, 1, 2)).for_model(vlm)
    method.edit_input(encoded)
    threads = threading.active_count()

    def stop(*_: Any) -> None:
        raise KeyError("broken off")

    hook = vlm.model.model.language_model.layers[1].register_forward_pre_hook(stop)
    session = Session(vlm.model, encoded.layouts, None, [method], pad_left=encoded.pad_left)
    with pytest.raises(KeyError), session, torch.no_grad():
        vlm.model(**encoded.inputs)
    hook.remove()
    assert threading.active_count() == threads
    assert not door.is_open()
