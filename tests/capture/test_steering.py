"""Every slot: identity leaves the output as it is, bit for bit; a known edit gives what it should by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor

from tests.capture.decoders import decoder, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, Session, Steering, Where
from vlmattn.core.errors import CaptureError
from vlmattn.core.layout import TokenKind

FULL = CaptureSpec(rows="prompt", columns="all", dtype="float32")
Rows = torch.Tensor


class Edit(Steering):
    """Steering made of functions."""

    def __init__(self, *, rows: Any = "after_image", layers: tuple[int, ...] | None = None) -> None:
        self.rows, self.layers = rows, layers


class Scores(Edit):
    def __init__(self, change: Callable[[Rows, Where], Rows | None], **options: Any) -> None:
        super().__init__(**options)
        self.change = change

    def edit_scores(self, scores_bhrk: Rows, where: Where) -> Rows | None:
        return self.change(scores_bhrk, where)


class Probs(Edit):
    def __init__(self, change: Callable[[Rows, Where], Rows | None], **options: Any) -> None:
        super().__init__(**options)
        self.change = change

    def edit_rows(self, probs_bhrk: Rows, where: Where) -> Rows | None:
        return self.change(probs_bhrk, where)


class Scale(Edit):
    def __init__(self, factors: torch.Tensor | None, **options: Any) -> None:
        super().__init__(**options)
        self.factors = factors

    def scale_heads(self, where: Where) -> torch.Tensor | None:
        return self.factors


IDENTITIES = {
    "scores none": Scores(lambda s, w: None),
    "scores same": Scores(lambda s, w: s),
    "scores equal": Scores(lambda s, w: s.clone(), rows="all"),
    "rows none": Probs(lambda p, w: None, rows="last"),
    "rows same": Probs(lambda p, w: p),
    "rows equal": Probs(lambda p, w: p.clone(), rows="all"),
    "heads none": Scale(None),
    "heads one": Scale(torch.ones(4)),
    "nothing": Edit(),
}


@torch.no_grad()
def logits(model: Any, inputs: Any, steering: list[Steering], spec: CaptureSpec | None = None) -> tuple[Any, Any]:
    pads = (inputs["attention_mask"] == 0).sum(1).tolist()
    session = Session(model, layouts_of(inputs, pads), spec, steering, pad_left=pads)
    with session:
        out = model(**inputs).logits
    return out, session.finish() if spec is not None else None


@pytest.mark.parametrize("name", IDENTITIES)
@pytest.mark.parametrize("spec", [None, FULL])
def test_identity_is_bit_identical(name: str, spec: CaptureSpec | None) -> None:
    model = decoder("llama_gqa")
    inputs, _ = padded_batch()
    with torch.no_grad():
        plain = model(**inputs).logits
    assert torch.equal(logits(model, inputs, [IDENTITIES[name]], spec)[0], plain)


@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_is_bit_identical_while_generating(name: str) -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch()
    settings = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    plain = model.generate(**inputs, **settings)
    with Session(model, layouts_of(inputs, pads), None, [IDENTITIES[name]], pad_left=pads):
        steered = model.generate(**inputs, **settings)
    assert all(torch.equal(a, b) for a, b in zip(plain.logits, steered.logits, strict=True))


class EagerEdit:
    """The same edit made inside eager attention, with full matrices: the plain implementation to compare with."""

    def __init__(
        self, model: Any, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], layers: tuple[int, ...]
    ):
        self.model, self.change, self.layers = model, change, layers

    def __enter__(self) -> None:
        from transformers.models.llama import modeling_llama

        self.module, self.original = modeling_llama, modeling_llama.eager_attention_forward

        def eager(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
            scores = query @ key.transpose(2, 3) * scaling
            probs = torch.softmax(scores + mask[..., : key.shape[2]] if mask is not None else scores, dim=-1)
            if module.layer_idx in self.layers:
                probs = self.change(scores + (mask[..., : key.shape[2]] if mask is not None else 0), probs)
            return (probs @ value).transpose(1, 2).contiguous(), probs

        modeling_llama.eager_attention_forward = eager

    def __exit__(self, *_: object) -> None:
        self.module.eager_attention_forward = self.original


def after_image(pads: list[int], count: int) -> torch.Tensor:
    return torch.stack([torch.arange(count) >= pad + 10 for pad in pads])[:, None, :, None]


def image_columns(pads: list[int], count: int) -> torch.Tensor:
    spots = torch.arange(count)
    return torch.stack([(spots >= pad + 2) & (spots < pad + 10) for pad in pads])[:, None, None, :]


def image(where: Where) -> torch.Tensor:
    return where.columns(TokenKind.IMAGE)


def more_image(scores: Rows, where: Where) -> Rows:
    return torch.where(image(where), scores + 0.5 * scores.abs(), scores)


def louder_image(scores: Rows, where: Where) -> Rows:
    return torch.where(image(where), scores * 1.5, scores)


def no_bos(probs: Rows, where: Where) -> Rows:
    return torch.where(where.columns(TokenKind.BOS), torch.zeros_like(probs), probs)


def to_image(probs: Rows, where: Where) -> Rows:
    seen = image(where)
    rest = torch.where(seen, torch.zeros_like(probs), probs)
    share = torch.where(seen, probs, torch.zeros_like(probs))
    moved = 0.5 * rest.sum(-1, keepdim=True)
    return rest * 0.5 + share + moved * share / share.sum(-1, keepdim=True).clamp_min(1e-9)


def copy_head(probs: Rows, where: Where) -> Rows:
    out = probs.clone()
    out[:, 1] = probs[:, 2]
    return out


CASES: dict[str, tuple[Steering, Callable[..., torch.Tensor]]] = {
    "A1 additive": (
        Scores(more_image),
        lambda s, p, i, r: torch.softmax(torch.where(i & (s > -1e9), s + 0.5 * s.abs(), s), -1),
    ),
    "A2 multiplicative": (
        Scores(louder_image),
        lambda s, p, i, r: torch.softmax(torch.where(i & (s > -1e9), s * 1.5, s), -1),
    ),
    "B1 redistribution": (
        Probs(to_image),
        lambda s, p, i, r: torch.where(
            i, p * (1 + 0.5 * (~i * p).sum(-1, keepdim=True) / (i * p).sum(-1, keepdim=True)), 0.5 * p
        ),
    ),
    "B2 zeroing": (Probs(no_bos), lambda s, p, i, r: torch.where(r, torch.zeros_like(p), p)),
    "B3 another head's rows": (Probs(copy_head), lambda s, p, i, r: p[:, [0, 2, 2, 3]]),
}


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layers", [(0, 1, 2, 3), (2,)])
def test_a_known_edit_equals_the_plain_one(name: str, layers: tuple[int, ...]) -> None:
    steering, by_hand = CASES[name]
    steering.layers = layers
    model, eager = decoder("llama_gqa"), decoder("llama_gqa", attention="eager")
    inputs, pads = padded_batch()
    count = inputs["input_ids"].shape[1]
    rows, columns = after_image(pads, count), image_columns(pads, count)
    bos = torch.stack([torch.arange(count) == pad for pad in pads])[:, None, None, :]

    def change(scores: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
        return torch.where(rows, by_hand(scores, probs, columns, bos), probs)

    steered, kept = logits(model, inputs, [steering], FULL)
    plain = model(**inputs).logits
    with EagerEdit(eager, change, layers):
        reference = eager(**inputs, output_attentions=True)
    for item, pad in enumerate(pads):
        assert torch.allclose(steered[item, pad:], reference.logits[item, pad:], atol=2e-5), name
        assert float((steered[item, pad:] - plain[item, pad:]).abs().max()) > 1e-3, "the edit changed nothing"
        for slot in range(4):
            want = reference.attentions[slot][item, :, pad:, pad:]
            assert torch.allclose(kept[item].attn_lhqk[slot], want, atol=2e-6), "kept rows are not the ones used"


@torch.no_grad()
def test_head_scaling_equals_scaling_before_the_output_projection() -> None:
    model = decoder("llama_gqa")
    inputs, _ = padded_batch((15,))
    factors = torch.tensor([1.0, 0.0, 2.0, 1.0])
    steered, _ = logits(model, inputs, [Scale(factors, rows="all", layers=(1,))])

    def scale(module: Any, args: Any) -> Any:
        return ((args[0].view(1, 15, 4, 16) * factors[:, None]).view(1, 15, 64),)

    handle = model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(scale)
    reference = model(**inputs).logits
    handle.remove()
    assert torch.equal(steered, reference)


@torch.no_grad()
@pytest.mark.parametrize(("rule", "first"), [("after_image", 10), ("last", 22), ("all", 0)])
def test_only_the_offered_rows_change(rule: Any, first: int) -> None:
    model = decoder("llama_gqa")
    inputs, _ = padded_batch((23,))
    plain = model(**inputs).logits[0]
    steered, _ = logits(model, inputs, [Probs(lambda p, w: p * 0.5, rows=rule, layers=(3,))])
    changed = (steered[0] != plain).any(-1)
    assert changed.tolist() == [position >= first for position in range(23)]


@torch.no_grad()
def test_edits_act_on_every_written_token() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch()
    seen: list[int] = []

    def note(probs: Rows, where: Where) -> Rows:
        seen.append(probs.shape[2])
        return probs * 0.5

    spec = CaptureSpec(rows="answer", columns="all", dtype="float32")
    session = Session(
        model, layouts_of(inputs, pads), spec, [Probs(note, layers=(3,))], pad_left=pads, max_new_tokens=4
    )
    with session:
        model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert seen == [13, 1, 1, 1]
    for kept in session.finish():
        assert torch.allclose(kept.mass_lhqs[3].sum(-1), torch.tensor(0.5), atol=1e-5)
        assert torch.allclose(kept.mass_lhqs[2].sum(-1), torch.tensor(1.0), atol=1e-5)


@torch.no_grad()
def test_two_edits_act_in_order() -> None:
    model = decoder("llama_gqa")
    inputs, _ = padded_batch((15,))
    half, square = Probs(lambda p, w: p * 0.5), Probs(lambda p, w: p**2)
    _, one = logits(model, inputs, [half, square], FULL)
    _, other = logits(model, inputs, [square, half], FULL)
    assert torch.allclose(one[0].attn_lhqk[0][:, -1] * 2, other[0].attn_lhqk[0][:, -1], atol=1e-6)


@torch.no_grad()
def test_the_logits_slot_is_a_logits_processor() -> None:
    class Forbid(LogitsProcessor):
        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
            scores = scores.clone()
            scores[:, 5:] = -torch.inf
            return scores

    class OnlyLow(Steering):
        def logits_processor(self) -> Any:
            return Forbid()

    model = decoder("llama_gqa")
    inputs, _ = padded_batch((15,))
    out = model.generate(**inputs, max_new_tokens=5, do_sample=False, logits_processor=[OnlyLow().logits_processor()])
    assert (out[:, 15:] < 5).all()
    assert not OnlyLow().edits_attention()


def test_rows_of_a_wrong_shape_are_refused() -> None:
    model = decoder("llama_gqa")
    inputs, _ = padded_batch((15,))
    with pytest.raises(CaptureError, match="returned rows of shape"):
        logits(model, inputs, [Probs(lambda p, w: p[..., :-1])])


@torch.no_grad()
def test_steering_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder("llama_gqa")
    inputs, _ = padded_batch()
    whole, kept = logits(model, inputs, [Probs(to_image)], FULL)
    monkeypatch.setattr("vlmattn.capture.steer.rows_per_chunk", lambda call: 4)
    parts, again = logits(model, inputs, [Probs(to_image)], FULL)
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.allclose(kept[0].attn_lhqk, again[0].attn_lhqk, atol=1e-6)
