"""What loading through vlmattn costs over plain transformers: both in one process, plain, ours, ours, plain in a turn.

Run ``python benchmarks/loading.py --pairs 9`` on a quiet machine. A random LLaVA is written to a temporary folder
first. Time is CPU time of this process; the ratio is the median over turns of ``vlmattn.load`` / transformers.
The files are in the system's cache after the first turn, so plain loading is as fast as it can be.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

TARGET = 1.02


def processor(words: int) -> Any:
    """LLaVA's processor with a byte-level vocabulary of ``words`` entries, most of them merges nobody uses."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = alphabet + [a + b for a in alphabet for b in alphabet][: words - len(alphabet)]
    merges = [(name[0], name[1]) for name in names[len(alphabet) :]]
    core = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens(
        [AddedToken(s, special=True, normalized=False) for s in ("<s>", "</s>", "<pad>", "<image>")]
    )
    text = tf.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    pixels = tf.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    return tf.LlavaProcessor(
        pixels, text, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )


def save(place: Path, layers: int, width: int, words: int) -> float:
    """Write a random LLaVA in bfloat16 with CLIP-L for a tower; its size in GiB."""
    own = processor(words)
    text = tf.LlamaConfig(
        vocab_size=len(own.tokenizer), hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=width // 64, max_position_embeddings=4096,
    )  # fmt: skip
    vision = tf.CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14,
    )  # fmt: skip
    image = own.tokenizer.convert_tokens_to_ids("<image>")
    config = tf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=image)
    model = tf.LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(place)
    own.save_pretrained(place)
    return sum(file.stat().st_size for file in place.iterdir()) / 2**30


def plain(place: Path) -> Any:
    """Model and processor as transformers loads them."""
    model = tf.AutoModelForImageTextToText.from_pretrained(place, dtype="auto").eval()
    return model, tf.AutoProcessor.from_pretrained(place)


def ours(place: Path) -> Any:
    """The same as vlmattn loads them."""
    import vlmattn as va

    return va.load(place)


def seconds(run: Callable[[Path], Any], place: Path) -> float:
    """CPU time of one loading; what it gave is let go afterwards."""
    gc.collect()  # what the turn before left behind
    start = time.process_time()
    held = run(place)
    took = time.process_time() - start
    del held
    return took


def measure(pairs: int, layers: int, width: int, words: int) -> dict[str, Any]:
    """Loadings that take turns, as medians and a ratio."""
    with tempfile.TemporaryDirectory() as folder:
        size = save(Path(folder), layers, width, words)
        spent: dict[str, list[float]] = {"plain": [], "ours": []}
        runs = {"plain": plain, "ours": ours}
        for turn in range(-1, pairs):
            took = {"plain": 0.0, "ours": 0.0}
            for name in ("plain", "ours", "ours", "plain"):
                took[name] += seconds(runs[name], Path(folder)) / 2
            for name in spent if turn >= 0 else ():  # the first turn imports
                spent[name].append(took[name])
    ratios = [a / b for a, b in zip(spent["ours"], spent["plain"], strict=True)]
    added = [a - b for a, b in zip(spent["ours"], spent["plain"], strict=True)]
    return {
        "gib": size,
        "words": words,
        "pairs": pairs,
        "plain_s": statistics.median(spent["plain"]),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "added_ms": statistics.median(added) * 1e3,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9, help="turns")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--words", type=int, default=32000, help="size of the vocabulary")
    parser.add_argument("--json", type=Path, help="write the numbers there as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    one = measure(options.pairs, options.layers, options.width, options.words)
    print(
        f"{one['gib']:.2f} GiB, {one['words']} words: plain {one['plain_s']:.3f} CPU s, vlmattn / plain "
        f"{one['ratio']:.3f} ({one['low']:.3f} - {one['high']:.3f}, {one['pairs']} pairs), {one['added_ms']:+.1f} ms; "
        f"target <= {TARGET:.2f} {'met' if one['ratio'] <= TARGET else 'MISSED'}"
    )
    if options.json is not None:
        options.json.write_text(json.dumps(one, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
