"""A tiny Fuyu."""

from __future__ import annotations

from typing import Any

from tests.tiny.parts import TEXT, made


def _tokenizer() -> Any:
    """Bytes with a space before every text, also where it begins with a mark, as Fuyu's own tokenizer has it."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = ["|SPEAKER|", "|NEWLINE|", "<0x04>"]
    vocab = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>", *marks]
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(vocab)}, merges=[], ignore_merges=True))
    core.normalizer = normalizers.Prepend(" ")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\|SPEAKER\||\|NEWLINE\||<0x04>"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", padding_side="left")


def fuyu() -> tuple[Any, Any]:
    """Fuyu."""
    from transformers import FuyuConfig, FuyuForCausalLM, FuyuImageProcessor, FuyuProcessor

    tok = _tokenizer()
    config = FuyuConfig(
        text_config=TEXT | {"model_type": "persimmon", "vocab_size": len(tok)},
        patch_size=10,
        image_token_id=tok.convert_tokens_to_ids("|SPEAKER|"),
    )
    pictures = FuyuImageProcessor(size={"height": 60, "width": 90}, patch_size={"height": 10, "width": 10})
    return made(FuyuForCausalLM, config), FuyuProcessor(pictures, tok)


MODELS = {"fuyu": fuyu}
