"""Words are found through tokenizers that mark spaces, fall back to bytes and swallow white space around pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import build
from vlmattn.adapters import Adapter, adapter_for
from vlmattn.core.layout import TokenKind

LETTERS = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ?:.,\n"


def llama_like(*, normalizer: bool, strips: bool) -> PreTrainedTokenizerFast:
    """As LLaVA-1.5's: ▁ for spaces (by a normalizer, or split off first), bytes for all other characters."""
    words = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)], *LETTERS, "▁c", "at", "▁cat"]
    vocab = {w: i for i, w in enumerate(words)}
    merges = [("▁", "c"), ("a", "t"), ("▁c", "at")]
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer:
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    marks = [
        AddedToken(w, special=True, normalized=False, lstrip=strips, rstrip=strips) for w in ("<s>", "</s>", "<image>")
    ]
    core.add_special_tokens(marks)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )


@pytest.fixture(params=[(True, False), (True, True), (False, False), (False, True)], ids=str)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    tokenizer = llama_like(normalizer=request.param[0], strips=request.param[1])
    model, processor = build("llava")
    processor.tokenizer = tokenizer
    processor.image_token_id = model.config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    return adapter_for(model, processor)


def test_every_word_of_the_question_has_its_tokens(adapter: Adapter) -> None:
    layout = adapter.encode([Image.new("RGB", (56, 56))], "a cat 🐱 cat?").layouts[0]
    start, end = layout.question_span
    assert layout.text[start:end] == "a cat 🐱 cat?"
    names = adapter.tokenizer.convert_ids_to_tokens(layout.input_ids.tolist())
    spans = layout.char_span.tolist()
    cats = [layout.text[a:b] for n, (a, b) in zip(names, spans, strict=True) if n == "▁cat"]
    assert [c.strip() for c in cats] == ["cat", "cat"]
    bytes_of_emoji = [layout.text[a:b] for n, (a, b) in zip(names, spans, strict=True) if n.startswith("<0x")]
    assert bytes_of_emoji == ["🐱"] * 4
    asked = "".join(n for n, k in zip(names, layout.kinds, strict=True) if k == TokenKind.QUESTION)
    assert asked.replace("▁", "") == "acat<0xF0><0x9F><0x90><0xB1>cat?"
    assert (layout.kinds == TokenKind.IMAGE).sum() == 16


def test_answers_of_such_a_tokenizer(adapter: Adapter) -> None:
    ids = adapter.tokenizer("a cat 🐱 cat.", add_special_tokens=False)["input_ids"]
    text, spans = adapter.decode_answer(ids)
    assert text == "a cat 🐱 cat."
    names = adapter.tokenizer.convert_ids_to_tokens(ids)
    said = {n: text[a:b] for n, (a, b) in zip(names, spans.tolist(), strict=True)}
    assert (said["▁cat"], said["<0xF0>"], said["<0xB1>"], said["."]) == (" cat", "🐱", "🐱", ".")
    assert np.array_equal(np.unique(spans[spans[:, 0] >= 0]), np.unique([0, 1, 5, 6, 7, 11, 12]))
