"""Value-weighted attention against whole eager matrices and the values of every head, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

from tests.tiny import TINY
from tests.tiny_models import FAMILIES, build
from vlmattn.api.follow import with_answers
from vlmattn.api.vlm import Vlm
from vlmattn.capture.sites import model_sites

PICTURE, QUESTION, ANSWER = data.coffee()[:120, :200], "Is the cup red?", "a red cup"


@pytest.mark.parametrize("kind", ["llava", "llava_onevision", "qwen2_5_vl", "gemma3"])
def test_it_is_attention_times_the_norm_of_the_projected_value(kind: str) -> None:
    vlm = Vlm(*(build(kind) if kind in FAMILIES else TINY[kind]()), name=kind)
    run = vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    layout = run.trace.layout
    ids = layout.input_ids[layout.answer_start :].tolist()
    longer, _ = with_answers(vlm.adapter, vlm.encode([run.pictures], [QUESTION]), [ids])
    kept: dict[int, torch.Tensor] = {}
    sites = model_sites(vlm.model).attention
    hooks = [
        site.module.v_proj.register_forward_hook(lambda m, a, out, n=site.layer_idx: kept.update({n: out[0].double()}))
        for site in sites
    ]
    told: Any = vlm.model.config._attn_implementation
    vlm.model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = vlm.model(**longer.inputs, use_cache=False, output_attentions=True).attentions
    vlm.model.set_attn_implementation(told)
    for hook in hooks:
        hook.remove()
    rows = [t - 1 for t in run.trace.find("red", part="answer").tokens]
    wanted = np.zeros(len(layout))
    for site in sites:
        weight, width = site.output_projection.weight.double(), site.module.head_dim
        group = site.heads // (kept[site.layer_idx].shape[1] // width)
        for head in range(site.heads):
            value = kept[site.layer_idx][:, (head // group) * width : (head // group + 1) * width]
            norm = (value @ weight[:, head * width : (head + 1) * width].T).norm(dim=1)
            line = attentions[site.layer_idx][0, head, rows].double().mean(dim=0) * norm
            wanted += line.detach().numpy() / (site.heads * len(sites))
    found = run.map("red", method="value").patch_map
    at = layout.image_positions
    got = np.array([found.values[layout.tile[p]][layout.row[p], layout.col[p]] for p in at])
    assert np.allclose(got, wanted[at], atol=1e-5, rtol=1e-4)
