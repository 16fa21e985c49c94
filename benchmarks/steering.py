"""What steering costs: time of an answer with each method against the same answer without, in one process.

Run ``python benchmarks/steering.py --pairs 5`` on a quiet machine (``--quick`` for a first look). Time is CPU time of
this process; the modes take turns, the ratio is that of the least time of each, as others on a machine only add to it;
the range is that of turns. The answer has a fixed number of tokens and nothing is captured; the prompt has 576 image
tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image

import vlmattn as va
from vlmattn.api.answers import answers_of
from vlmattn.api.request import Request
from vlmattn.capture import Steering
from vlmattn.sinks import SinkCoordinates
from vlmattn.steering import (
    ACT,
    ADHH,
    DAGCD,
    DAMRO,
    EAH,
    HGAI,
    ICD,
    M3ID,
    OPERA,
    PAI,
    PAINT,
    SPIN,
    VAF,
    VAR,
    VCD,
    VHR,
    DeCo,
    DoLa,
    Focus,
    PAIContrast,
)  # fmt: skip

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.paired import cpu_seconds
from tests.tiny_models import USER_ASSISTANT, tokenizer

ONE_PASS, TWO_BRANCH = 1.1, 2.1
QUESTION = "What is on the table beside the lamp?"


def methods(layers: int, heads: int, width: int) -> dict[str, tuple[Steering, float]]:
    """Each method by name, with the most it may cost."""
    every = tuple((layer, head) for layer in range(layers) for head in range(0, heads, heads // 2))
    directions = np.random.default_rng(0).normal(size=(len(every), width // heads))
    one: dict[str, Steering] = {
        "VAR": VAR(coordinates=SinkCoordinates((1, 2), width, first_layer=2), tau_relative=0.02),
        "PAI": PAI(),
        "HGAI": HGAI(),
        "VAF": VAF(),
        "SPIN": SPIN(),
        "AD-HH": ADHH(heads=every),
        "EAH": EAH(),
        "ACT": ACT(alpha=2.0),
        "PAINT": PAINT(),
        "VHR": VHR(),
        "DoLa": DoLa(),
        "DeCo": DeCo(),
        "Focus": Focus(heads=every, queries=directions, keys=directions),
        "DAGCD": DAGCD(heads=every[:10], weights=(1.0,) * len(every[:10])),
    }
    two: dict[str, Steering] = {
        "VCD": VCD(),
        "ICD": ICD(),
        "PAI contrast": PAIContrast(),
        "M3ID": M3ID(),
        "DAMRO": DAMRO(),
    }
    told = {n: (m, ONE_PASS) for n, m in one.items()} | {n: (m, TWO_BRANCH) for n, m in two.items()}
    return told | {"OPERA": (OPERA(), float("inf"))}  # against beam search with as many beams


def build(layers: int, width: int, heads: int) -> va.Vlm:
    """A random LLaVA under SDPA with a tower of two layers and 24 x 24 patches."""
    torch.manual_seed(0)
    words = tokenizer()
    text = tf.LlamaConfig(
        vocab_size=4096, hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=8192, eos_token_id=None, bos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    vision = tf.CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=336, patch_size=14
    )
    image = words.convert_tokens_to_ids("<image>")
    config = tf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=image, vision_feature_layer=-1)
    model = tf.LlavaForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
    pixels = tf.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    processor = tf.LlavaProcessor(
        pixels, words, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=USER_ASSISTANT,
    )  # fmt: skip
    return va.Vlm(model, processor, name="random")


def answering(vlm: va.Vlm, steering: Steering | None, new: int, beams: int = 1) -> Callable[[], Any]:
    """A function that answers once; ``beams`` of a plain answer."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (336, 336, 3), dtype=np.uint8))
    alone = steering is not None and steering.searches()
    request = Request(
        items=((picture, QUESTION),),
        steering=() if steering is None else (steering,),
        max_new_tokens=new,
        generate={} if alone else {"min_new_tokens": new} | ({"num_beams": beams} if beams > 1 else {}),
    )
    return lambda: answers_of(vlm, request)


def time_ratios(vlm: va.Vlm, chosen: dict[str, tuple[Steering, float]], new: int, pairs: int) -> list[dict[str, Any]]:
    """One record per method: least CPU time over the least of the plain answer, and the range of ratios by turn."""
    records = []
    for name, (method, most) in chosen.items():
        plain = answering(vlm, None, new, method.beams if isinstance(method, OPERA) else 1)
        steered = answering(vlm, method, new)
        answering(vlm, method, 2)()
        spent: list[list[float]] = [[], []]  # plain, steered
        for turn in range(pairs):
            for way in (0, 1) if turn % 2 else (1, 0):
                spent[way].append(cpu_seconds((plain, steered)[way]))
        ratios = [made / alone for alone, made in zip(*spent, strict=True)]
        records.append(
            {
                "method": name,
                "ratio": min(spent[1]) / min(spent[0]),
                "low": min(ratios),
                "high": max(ratios),
                "target": most,
                "pairs": pairs,
            }
        )
        print(line(records[-1]), flush=True)
    return records


def line(record: dict[str, Any]) -> str:
    """One row of the table."""
    verdict = "" if record["ratio"] <= record["target"] else "  over"
    return (
        f"{record['method']:14} {record['ratio']:6.3f}  [{record['low']:.3f} to {record['high']:.3f}]  "
        f"target {record['target']}{verdict}"
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--new", type=int, default=32, help="tokens of the answer")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--only", nargs="*", help="names of methods")
    parser.add_argument("--quick", action="store_true", help="a small model, two pairs, eight tokens")
    parser.add_argument("--out", type=Path, help="write the records as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    width, heads = (256, 4) if args.quick else (1024, 16)
    vlm = build(args.layers, width, heads)
    chosen = methods(args.layers, heads, width)
    if args.only:
        chosen = {name: chosen[name] for name in args.only}
    records = time_ratios(vlm, chosen, 8 if args.quick else args.new, 2 if args.quick else args.pairs)
    if args.out:
        args.out.write_text(json.dumps(records, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
