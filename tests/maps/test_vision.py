"""Maps of the vision tower against eager attention of the tower itself, in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.tiny import TINY
from tests.tiny_models import build
from vlmattn.api.vlm import Vlm
from vlmattn.capture import TowerPass
from vlmattn.core.errors import BudgetExceeded, CaptureError, MapError, SpecError, UnsupportedModel
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.tower_cells import TowerCells, TowerView
from vlmattn.maps import high_norm_tokens, rollout, through_tower
from vlmattn.trace import TowerTrace

LLAVA = {
    "llava": ("llava", {}),
    "llava_siglip": ("llava", {"tower": "siglip"}),
    "llava_next": ("llava_next", {}),
    "llava_onevision": ("llava_onevision", {}),
}
FAMILIES = (
    *LLAVA,
    *("qwen2_vl", "qwen2_5_vl", "internvl", "gemma3_scanned", "gemma4", "pixtral", "mistral3", "nemotron_h_omni"),
    *("blip-2", "instructblip t5", "idefics", "idefics2", "idefics2 split", "molmo2"),
)


def made(kind: str) -> Vlm:
    model, processor = build(LLAVA[kind][0], **LLAVA[kind][1]) if kind in LLAVA else TINY[kind]()
    sharpen(model)
    return Vlm(model, processor, name=kind)


def sharpen(model: Any) -> None:
    """Make the tower's attention far from uniform."""
    inside = {id(w) for w in model.get_decoder().parameters()}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if id(weight) not in inside and weight.ndim == 2 and any(n in name for n in ("q_proj", "k_proj", "qkv")):
                weight.mul_(3.0)


def picture(width: int, height: int) -> Any:
    return np.random.default_rng(width + height).integers(0, 255, (height, width, 3), dtype=np.uint8)


class Eager:
    """Attention weights as the tower's own eager function returns them, and what leaves each block."""

    def __init__(self, model: Any, stack: str) -> None:
        self.model, self.stack = model, model.get_submodule(stack)
        self.weights: dict[int, list[torch.Tensor]] = {}
        self.outputs: dict[int, list[torch.Tensor]] = {}

    def run(self, inputs: Any) -> None:
        import sys

        kept, module = self.weights, sys.modules[type(self.stack[0]).__module__]
        original = module.eager_attention_forward
        numbers = {id(m): n for n, block in enumerate(self.stack) for m in block.modules()}

        def recorded(attention: Any, *args: Any, **options: Any) -> Any:
            out, weights = original(attention, *args, **options)
            if id(attention) in numbers:
                kept.setdefault(numbers[id(attention)], []).append(weights.detach().float())
            return out, weights

        handles = [b.register_forward_hook(self._leaving(n)) for n, b in enumerate(self.stack)]
        self.model.set_attn_implementation("eager")
        module.eager_attention_forward = recorded
        try:
            with torch.no_grad():
                self.model(**inputs)
        finally:
            module.eager_attention_forward = original
            self.model.set_attn_implementation("sdpa")
            for handle in handles:
                handle.remove()

    def _leaving(self, number: int) -> Any:
        def hook(_m: Any, _a: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            self.outputs.setdefault(number, []).append(states.detach().float())

        return hook

    def full(self, layer: int, views: list[TowerView]) -> torch.Tensor:
        """(H, T, T) of all calls of a layer, block by block, padding left out."""
        calls, total = self.weights[layer], sum(map(len, views))
        padded = sum(c.shape[0] * c.shape[2] for c in calls) > total
        blocks = [b for c in calls for b in c]
        if padded:
            blocks = [b[:, at][:, :, at] for b, at in zip(blocks, unpadded(views), strict=True)]
        heads = blocks[0].shape[0]
        whole = torch.zeros(heads, total, total)
        start = 0
        for block in blocks:
            n = block.shape[-1]
            whole[:, start : start + n, start : start + n] = block
            start += n
        assert start == total
        return whole

    def norms(self, layer: int, views: list[TowerView]) -> torch.Tensor:
        parts = self.outputs[layer]
        line = torch.cat([p.reshape(-1, p.shape[-1]) for p in parts]).norm(dim=-1)
        if len(line) > sum(map(len, views)):
            rows = [r for p in parts for r in p]
            line = torch.cat([r[at] for r, at in zip(rows, unpadded(views), strict=True)]).norm(dim=-1)
        return line


def unpadded(views: list[TowerView]) -> list[Any]:
    """Where the tokens of each view are in one that was padded: the first ones, or the upper left ones of a grid."""
    cols = max(view.grid_hw[1] if view.grid_hw else 0 for view in views)
    grids = [np.arange(100 * cols).reshape(100, -1) if cols else None for _ in views]
    pairs = zip(views, grids, strict=True)
    return [slice(len(v)) if g is None else g[: v.grid_hw[0], : v.grid_hw[1]].reshape(-1) for v, g in pairs]


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_towers_maps_equal_eager_attention(kind: str) -> None:
    vlm = made(kind)
    pictures = [picture(180, 120), picture(60, 110)][: vlm.adapter.max_images]
    run = vlm.ask(pictures, "What is there?", max_new_tokens=1)
    tower = run.tower("rollout")
    views = [v for c in tower.cells for v in c.views]
    lengths = [len(v) for v in views]
    encoded = vlm.encode([run.pictures], ["What is there?"])
    passing = TowerPass(vlm.model, [v for c in tower.cells for v in c.views])
    passing.run(encoded.inputs)
    eager = Eager(vlm.model, passing._stack)
    eager.run(encoded.inputs)
    starts = np.cumsum([0, *lengths])
    product = torch.eye(sum(lengths), dtype=torch.float64)
    for slot, layer in enumerate(tower.layers):
        whole = eager.full(layer, views)
        sizes = torch.cat([torch.full((n,), float(n)) for n in lengths])
        assert np.allclose(tower.received_lht[slot], whole.sum(1) / sizes, atol=1e-6)
        assert np.allclose(tower.norm_lt[layer], eager.norms(layer, views), rtol=1e-5)
        for view, start in zip((v for c in tower.cells for v in c.views), starts[:-1], strict=True):
            for row, place in enumerate((*view.classes, *view.registers)):
                mine = slice(start, start + len(view))
                assert np.allclose(tower.special_lhst[slot, :, row, mine], whole[:, start + place, mine], atol=1e-6)
        if layer < tower.read:
            step = (whole.double().mean(0) + torch.eye(sum(lengths))) / 2
            product = step / step.sum(-1, keepdim=True) @ product
            last = whole.mean(0)
    for flow, start in zip(tower.flows, starts[:-1], strict=True):
        mine = slice(start, start + len(flow))
        assert np.allclose(flow, product[mine, mine], atol=1e-6)
        assert np.allclose(flow.sum(1), 1.0, atol=1e-5)
    for flow, start in zip(run.tower("last").flows, starts[:-1], strict=True):
        assert np.allclose(flow, last[start : start + len(flow), start : start + len(flow)], atol=1e-6)
    even = np.concatenate([[n] * n for n in lengths])
    assert float(np.abs(tower.received_lht * even - 1).max()) > 0.02, "attention is even, so nothing was tested"


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl", "llava_onevision"])
def test_a_map_of_the_tower_lies_where_the_cells_are(kind: str) -> None:
    vlm = made(kind)
    run = vlm.ask([picture(180, 120), picture(60, 110)], "What is there?", max_new_tokens=1)
    tower = run.tower()
    for image in range(2):
        cells, where = tower.cells[image], tower.tokens_of(image)
        looks = {"received": tower.received_lht[tower.read - 1].mean(0)[where]}
        if cells.special("classes").size:
            looks["class"] = tower.special_lhst[tower.read - 1, :, 0].mean(0)[where]
        for name, line in looks.items():
            flat = np.concatenate([v.reshape(-1) for v in run.vision_map(name, image=image).patch_map.values])
            for number in range(cells.cells):
                mine = cells.cell == number
                assert flat[number] == pytest.approx((line[cells.token[mine]] * cells.weight[mine]).sum(), abs=1e-9)
    assert run.vision_map("rollout").patch_map.provenance.method == "tower_rollout"
    assert "norm" in run.vision_map("norm").patch_map.provenance.summary()


def test_rollout_starts_where_it_is_told() -> None:
    run = made("nemotron_h_omni").ask(picture(180, 120), "What?", max_new_tokens=1)
    flow, view = run.tower("rollout").flows[0], run.tower("rollout").cells[0].views[0]
    cells = run.tower("rollout").cells[0]
    assert view.registers
    for start, rows in (("class", view.classes), ("register", view.registers)):
        got = np.concatenate([v.reshape(-1) for v in run.vision_map("rollout", start=start).patch_map.values])
        assert np.allclose(got, cells.to_cells(flow[list(rows)].mean(0)))
    default = run.vision_map("rollout").patch_map
    assert np.allclose(default.values[0], run.vision_map("rollout", start="class").patch_map.values[0])
    assert "register" in run.vision_map("register").label


# -- by hand -----------------------------------------------------------------------------------------------------------


def by_hand(flow: Any = None, *, norms: Any = None) -> TowerTrace:
    """A picture of 1 x 2 cells, each two of four patches, behind a class token: tokens class, a, a, b, b."""
    layout = ImageLayout((4, 2), (Tile("base", (1, 2), (0.0, 0.0, 4.0, 2.0)),))
    view = TowerView(np.array([-1, 0, 0, 1, 1]), classes=(0,))
    line = np.array([0.1, 0.2, 0.3, 0.3, 0.1], dtype=np.float32)
    return TowerTrace(
        pictures=(layout,),
        cells=(TowerCells.averaged([view], 2),),
        layers=(0,),
        depth=1,
        read=1,
        received_lht=line.reshape(1, 1, 5),
        special_lhst=line.reshape(1, 1, 1, 5),
        norm_lt=np.asarray(norms if norms is not None else line, dtype=np.float32).reshape(1, 5),
        flows=() if flow is None else (np.asarray(flow, dtype=np.float32),),
        flow="" if flow is None else "rollout",
    )


def test_values_of_a_cell_are_averaged_and_mass_is_summed() -> None:
    flow = np.eye(5)
    flow[1] = (0.2, 0.0, 0.0, 0.8, 0.0)  # the output of one patch of the first cell comes from the class token and b
    tower = by_hand(flow)
    assert np.allclose(va.maps.class_attention(tower).values[0], [[0.25, 0.2]])
    look = va.PatchMap(([[1.0, 3.0]],), tower.pictures[0], label="cat")
    carried = through_tower(look, tower)
    assert np.allclose(carried.values[0], [[0.5, 3.4]])  # 0.1 of the mass went to the class token
    assert carried.label == "cat"
    assert np.allclose(rollout(tower, start="patches").values[0], [[0.125, 0.35]])


def test_high_norms_are_told_from_the_others() -> None:
    tower = by_hand(norms=[90.0, 1.0, 8.0, 2.0, 2.0])  # the class token is no patch
    (found,) = high_norm_tokens(tower)
    assert (found.norm, found.times_median, found.place, found.row, found.col) == (8.0, 4.0, 2, 0, 0)
    assert found.box_xyxy == (0.0, 0.0, 2.0, 2.0)
    assert high_norm_tokens(tower, threshold=4.5) == ()
    assert [t.norm for t in high_norm_tokens(tower, rule="absolute", threshold=1.5)] == [8.0, 2.0, 2.0]
    assert high_norm_tokens(by_hand(norms=[1, 2, 151, 3, 150]), rule="absolute")[0].norm == 151.0
    assert np.allclose(va.maps.patch_norms(tower).values[0], [[4.5, 2.0]])


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda t: rollout(t), MapError, "no flow was kept"),
        (lambda t: va.maps.register_attention(t), SpecError, "has no register token"),
        (lambda t: va.maps.class_attention(t, heads=[1]), SpecError, "heads must be among 0 to 0"),
        (lambda t: va.maps.class_attention(t, layers=3), SpecError, r"no attention in layers \[3\]"),
        (lambda t: va.maps.class_attention(t, image=1), SpecError, "picture 1 does not exist"),
        (lambda t: va.maps.patch_norms(t, layer=1), SpecError, "layer 1 does not exist"),
        (lambda t: high_norm_tokens(t, rule="mean"), SpecError, "rule must be 'median' or 'absolute'"),
        (lambda t: high_norm_tokens(t, threshold=0), SpecError, "threshold must be above 0"),
        (lambda t: rollout(by_hand(np.eye(5)), start="cat"), SpecError, "start must be class, register or patches"),
    ],
)
def test_what_is_not_there_is_refused(wrong: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        wrong(by_hand())


def test_a_map_of_another_picture_is_refused() -> None:
    other = ImageLayout((4, 2), (Tile("base", (2, 1), (0.0, 0.0, 4.0, 2.0)),))
    with pytest.raises(MapError, match="different pictures"):
        through_tower(va.PatchMap(([[1.0], [3.0]],), other), by_hand(np.eye(5)))


# -- on a run ----------------------------------------------------------------------------------------------------------


def test_a_text_map_goes_through_the_tower() -> None:
    run = made("llava_next").ask(picture(180, 120), "What is there?", max_new_tokens=2)
    plain = run.map("there", part="question")
    for through in ("rollout", "last"):
        tower = run.tower(through)
        carried = run.map("there", part="question", through=through)
        assert 0 < carried.patch_map.total <= plain.patch_map.total + 1e-6
        assert not np.allclose(carried.patch_map.values[0], plain.patch_map.values[0])
        assert through_tower(plain.patch_map, tower).total == pytest.approx(carried.patch_map.total)
    assert "through the vision tower" in carried.patch_map.provenance.steps[-1]


@pytest.mark.parametrize(
    ("kind", "ask", "error", "match"),
    [
        ("llava", lambda r: r.vision_map("cat"), SpecError, "must be one of class, register, received"),
        ("llava", lambda r: r.vision_map("norm", heads=[0]), SpecError, "has no option 'heads'; it has layer"),
        ("llava", lambda r: r.vision_map(image=1), SpecError, "picture 1 does not exist"),
        ("llava", lambda r: r.map(through="cat"), SpecError, "must be 'rollout' or 'last'"),
        ("llava_onevision", lambda r: r.vision_map("class"), SpecError, "has no class token"),
        ("got_ocr2", lambda r: r.vision_map(), SpecError, "no vision tower whose attention can be seen"),
        ("minicpmv4_6", lambda r: r.vision_map(), UnsupportedModel, "a merger inside its tower"),
        ("lfm3_vl", lambda r: r.vision_map("rollout"), SpecError, r"layers \[0\] of the vision tower"),
    ],
)
def test_what_a_tower_cannot_tell_is_refused(kind: str, ask: Any, error: type[Exception], match: str) -> None:
    run = made(kind).ask(picture(180, 120), "What is there?", max_new_tokens=1)
    with pytest.raises(error, match=match):
        ask(run)


def test_a_flow_over_the_budget_and_other_tokens_than_expected_are_refused() -> None:
    vlm = made("llava")
    encoded = vlm.encode([vlm._pictures(picture(60, 60))], ["What?"])
    view = vlm.adapter.tower_cells(encoded.layouts[0].images[0]).views[0]
    with pytest.raises(BudgetExceeded, match=r"the rollout of 1 views of up to 17 tokens .* budget of 99 bytes"):
        TowerPass(vlm.model, [view], flow="rollout", budget=99)
    with pytest.raises(CaptureError, match="holds 17 tokens"):
        TowerPass(vlm.model, [view, view]).run(encoded.inputs)
    assert not any(h.__qualname__.startswith("TowerPass") for m in vlm.model.modules() for h in _hooks(m))


def _hooks(module: Any) -> Any:
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def test_a_pass_of_the_tower_leaves_the_model_as_it_was() -> None:
    vlm = made("qwen2_5_vl")
    encoded = vlm.encode([vlm._pictures(picture(90, 60))], ["What?"])
    with torch.no_grad():
        before = vlm.model(**encoded.inputs).logits
    vlm.ask(picture(90, 60), "What?", max_new_tokens=1).tower("rollout")
    with torch.no_grad():
        assert torch.equal(vlm.model(**encoded.inputs).logits, before)
