"""Methods that read earlier layers, against whole passes with all hidden states."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.steering.plain_contrast import FAMILIES, alone, check_same, cut, encoded_of, log_p, vlm_of
from vlmattn.core.errors import SpecError
from vlmattn.steering import DeCo, DoLa


def exits_of(vlm: Any, inputs: dict[str, Any], written: torch.Tensor) -> list[torch.Tensor]:
    """(V,) log-probabilities behind 1 … n layers of a whole line."""
    states: list[torch.Tensor] = []
    decoder = vlm.model.model.language_model
    hooks = [b.register_forward_hook(lambda _m, _a, out: states.append(first(out)[0, -1])) for b in decoder.layers]
    width = inputs["input_ids"].shape[1]
    given = dict(inputs)
    for name, value in inputs.items():
        if tuple(value.shape) == (1, width):
            tail = written[None] if name == "input_ids" else value.new_full((1, len(written)), name == "attention_mask")
            given[name] = torch.cat([value, tail.to(value.dtype)], dim=1)
    with torch.no_grad():
        vlm.model(**given, use_cache=False)
        for hook in hooks:
            hook.remove()
        return [log_p(vlm.model.lm_head(decoder.norm(x[None]))[0].float()) for x in states]


def first(out: Any) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


def jsd(p: torch.Tensor, q: torch.Tensor) -> float:
    total = 0.0
    for a, b in zip(p.exp().tolist(), q.exp().tolist(), strict=True):
        m = (a + b) / 2
        total += (a * math.log(a / m) if a else 0) / 2 + (b * math.log(b / m) if b else 0) / 2
    return total


def dola_rule(vlm: Any, behind: tuple[int, ...], beta: float) -> Any:
    clean = [alone(vlm, n) for n in range(2)]

    def rule(number: int, written: torch.Tensor) -> torch.Tensor:
        layers = exits_of(vlm, clean[number], written)
        p = layers[-1]
        far = max(behind, key=lambda n: jsd(p, layers[n - 1]))
        return cut(p - layers[far - 1], p, beta)

    return rule


def deco_rule(vlm: Any, behind: tuple[int, ...], alpha: float, top_p: float, top_k: int) -> Any:
    clean = [alone(vlm, n) for n in range(2)]

    def rule(number: int, written: torch.Tensor) -> torch.Tensor:
        layers = exits_of(vlm, clean[number], written)
        p = layers[-1]
        ranked, total, chosen = sorted(range(len(p)), key=lambda t: -float(p[t])), 0.0, []
        for token in ranked[:top_k]:
            if total >= top_p:
                break
            chosen.append(token)
            total += float(p[token].exp())
        anchor = max(behind, key=lambda n: float(layers[n - 1][chosen].exp().max()))
        sure = float(layers[anchor - 1][chosen].exp().max())
        out = torch.full_like(p, -torch.inf)
        out[chosen] = (p + alpha * sure * layers[anchor - 1])[chosen]
        return log_p(out)

    return rule


@pytest.mark.parametrize("decoding", ["greedy", "beams", "samples"])
@pytest.mark.parametrize("family", FAMILIES)
def test_dola(family: str, decoding: str) -> None:
    vlm = vlm_of(family)
    check_same(vlm, DoLa(premature=(1, 2), beta=0.02), dola_rule(vlm, (1, 2), 0.02), decoding)


@pytest.mark.parametrize("decoding", ["greedy", "beams", "samples"])
@pytest.mark.parametrize("family", FAMILIES)
def test_deco(family: str, decoding: str) -> None:
    vlm = vlm_of(family)
    method = DeCo(alpha=0.8, top_p=0.97, top_k=12, first=1, last=2)
    check_same(vlm, method, deco_rule(vlm, (1, 2), 0.8, 0.97, 12), decoding)


@pytest.mark.parametrize("method", [DoLa(premature=(9,)), DeCo(first=2, last=9), DeCo.preset("readme")])
def test_layers_that_do_not_exist_are_refused(method: Any) -> None:
    vlm = vlm_of("llava")
    with pytest.raises(SpecError, match="layers"), method.writing(vlm.model, encoded_of(vlm, "Who?")):
        pass


def test_hooks_are_gone_afterwards() -> None:
    vlm = vlm_of("llava")
    with DoLa(premature=(1,)).writing(vlm.model, encoded_of(vlm, "Who?")):
        assert sum(len(m._forward_hooks) for m in vlm.model.modules()) > 0
    assert sum(len(m._forward_hooks) for m in vlm.model.modules()) == 0
