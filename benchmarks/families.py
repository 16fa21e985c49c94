"""What capture costs in every family: generation with and without it, in turns, on models of the real classes.

Run ``python benchmarks/families.py`` from the repository's root on a quiet machine. The models are the random tiny
ones of ``tests/tiny``, where possible with a text model widened ``--wide`` times, so that a layer does some work. Time
is CPU time of this process on one thread.

Two figures per family. ``ratio``: generation with all answer rows kept / plain generation, median over turns, of the
widened models. ``us``: what capture adds per layer with attention and pass of the model, in microseconds, of the tiny
ones: a family with a slow path of its own would show here, whatever its layers cost.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image

from vlmattn.api import Vlm
from vlmattn.capture import CaptureSpec, Session, model_sites
from vlmattn.core.errors import VlmattnError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.paired import cpu_seconds
from tests.tiny import TINY

TARGET = 1.05
WIDENED = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
SPEC = CaptureSpec(rows="answer", top_k=0)


def widened(model: Any, times: int) -> Any | None:
    """A new random model of the same class whose text model is wider; None where its parts do not fit then."""
    config = copy.deepcopy(model.config)
    text = config.get_text_config(decoder=True)
    for name in WIDENED:
        if isinstance(getattr(text, name, None), int):
            setattr(text, name, getattr(text, name) * times)
    towers = [getattr(config, name, None) for name in ("vision_config", "vision_tower_config")]
    for tower in towers:
        for name in ("out_hidden_size", "projection_dim", "text_hidden_size"):
            if getattr(tower, name, None) == text.hidden_size // times:
                setattr(tower, name, text.hidden_size)
    try:
        torch.manual_seed(0)
        return type(model)(config).eval()
    except Exception:
        return None


def generation(vlm: Vlm, new: int, *, capture: bool) -> Callable[[], None]:
    """A function that generates ``new`` tokens about one picture."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    encoded = vlm.encode([vlm._pictures(Image.fromarray(noise))], ["What is in the picture?"])
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False} | vlm.adapter.generation()

    def plain() -> None:
        vlm.model.generate(**encoded.inputs, **options)

    def captured() -> None:
        with Session(vlm.model, encoded.layouts, SPEC, pad_left=encoded.pad_left, max_new_tokens=new) as session:
            vlm.model.generate(**encoded.inputs, **options)
        session.finish()

    return captured if capture else plain


def paired(vlm: Vlm, new: int, pairs: int) -> tuple[list[float], list[float]]:
    """CPU seconds of plain and of captured generations that took turns."""
    runs = [generation(vlm, new, capture=capture) for capture in (False, True)]
    spent: tuple[list[float], list[float]] = ([], [])
    for turn in range(pairs + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            took = cpu_seconds(runs[which])
            if turn:
                spent[which].append(took)
    return spent


def measure(kind: str, new: int, pairs: int, wide: int) -> dict[str, Any]:
    """One family's record."""
    model, processor = TINY[kind]()
    layers = len(model_sites(model).layers)
    plain, kept = paired(Vlm(model, processor, name=kind), new, pairs)
    added = statistics.median(b - a for a, b in zip(plain, kept, strict=True))
    record: dict[str, Any] = {"kind": kind, "layers": layers, "us": added * 1e6 / layers / new}
    bigger = widened(model, wide)
    if bigger is not None:
        try:
            plain, kept = paired(Vlm(bigger, processor, name=kind), new, pairs)
        except (RuntimeError, ValueError, VlmattnError):
            return record
        ratios = [b / a for a, b in zip(plain, kept, strict=True)]
        record |= {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
        record["plain_s"] = statistics.median(plain)
    return record


def show(one: dict[str, Any]) -> None:
    """Print a line of the table."""
    ratio = f"{one['ratio']:6.3f} [{one['low']:.3f}, {one['high']:.3f}]" if "ratio" in one else "     -"
    print(f"{one['kind']:28} {one['layers']:3} layers {one['us']:8.0f} us  {ratio}", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--new", type=int, default=16, help="tokens to generate")
    parser.add_argument("--wide", type=int, default=16, help="how many times wider the text models become")
    parser.add_argument("--only", nargs="*", help="kinds of tests/tiny; default: all")
    parser.add_argument("--json", type=Path, help="write the numbers there as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tf.logging.set_verbosity_error()
    records = []
    for kind in options.only or sorted(TINY):
        records.append(measure(kind, options.new, options.pairs, options.wide))
        show(records[-1])
    usual = statistics.median(one["us"] for one in records)
    slow = [one["kind"] for one in records if one["us"] > 2 * usual]
    missed = [one["kind"] for one in records if one.get("ratio", 0) > TARGET]
    print(f"median {usual:.0f} us; more than twice that: {', '.join(slow) or 'none'}")
    print(f"{sum('ratio' in one for one in records)} widened; above {TARGET}: {', '.join(missed) or 'none'}")
    if options.json is not None:
        options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
