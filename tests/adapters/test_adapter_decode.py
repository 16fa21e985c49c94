"""Answers: their text, and which characters each token wrote."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import tiny
from vlmattn.adapters import adapter_for
from vlmattn.adapters.decode import decoded


@pytest.mark.parametrize("text", ["A cat.", " leading", "trailing \n", "🐱🐶", "👩‍👩‍👧", "سيارة", "a\u0301b", ""])
def test_bytes_share_the_character_they_write(text: str) -> None:
    adapter = adapter_for(*tiny("llava"))
    ids = adapter.tokenizer(text, add_special_tokens=False)["input_ids"]
    got, spans = adapter.decode_answer(ids)
    assert got == text.strip()
    assert spans.shape == (len(ids), 2)
    expected = [i for i, c in enumerate(text) for _ in c.encode()]
    lead = len(text) - len(text.lstrip())
    for char, (a, b) in zip(expected, spans.tolist(), strict=True):
        inside = lead <= char < lead + len(got)
        assert (a, b) == ((char - lead, char - lead + 1) if inside else (-1, -1))


def test_special_tokens_write_nothing() -> None:
    adapter = adapter_for(*tiny("llava"))
    ids = adapter.tokenizer("Yes", add_special_tokens=False)["input_ids"]
    end = adapter.tokenizer.eos_token_id
    text, spans = adapter.decode_answer([ids[0], end, *ids[1:], end])
    assert text == "Yes"
    assert spans.tolist() == [[0, 1], [-1, -1], [1, 2], [2, 3], [-1, -1]]


def test_bytes_that_are_no_character_keep_their_replacement() -> None:
    adapter = adapter_for(*tiny("llava"))
    cat = adapter.tokenizer("🐱", add_special_tokens=False)["input_ids"]
    word = adapter.tokenizer("ok", add_special_tokens=False)["input_ids"]
    text, spans = adapter.decode_answer([*cat[:2], *word])
    assert text.endswith("ok")
    assert "\ufffd" in text
    assert text[slice(*spans[-1])] == "k"
    covered = np.zeros(len(text), dtype=bool)
    for a, b in spans.tolist():
        covered[a:b] = True
    assert covered.all()


def test_sentencepiece_spaces() -> None:
    vocab = {"<unk>": 0, "▁A": 1, "▁cat": 2, "s": 3, "▁": 4, ".": 5}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    text, spans = decoded(tokenizer, [1, 2, 3, 5])
    assert text == "A cats."
    assert spans.tolist() == [[0, 1], [1, 5], [5, 6], [6, 7]]


def test_tensors_and_arrays_are_taken() -> None:
    adapter = adapter_for(*tiny("llava"))
    ids = adapter.tokenizer("Yes", add_special_tokens=False)["input_ids"]
    for given in (torch.tensor([ids]), np.asarray(ids), ids):
        assert adapter.decode_answer(given)[0] == "Yes"
