"""What capture costs: time against the plain model in the same process, memory in processes of their own.

Run ``python benchmarks/capture.py --pairs 5`` on a quiet machine (``--quick`` for a first look). Time is CPU time of
this process; the modes take turns, the ratio is the median over turns of mode / plain in the same turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf

from benchmarks.paired import cpu_seconds
from vlmattn.capture import CaptureSpec, Session
from vlmattn.core.layout import TokenLayout, plain_layout

IMAGE_TOKEN = 4
PATCHES = 576
BEFORE, AFTER = 24, 40
SPECS = {
    "answer rows": CaptureSpec(rows="answer", top_k=0),
    "answer rows, top_k=5": CaptureSpec(rows="answer"),
    "answer + 40 question rows": CaptureSpec(rows=("after_image", "answer"), top_k=0),
}
# Large blocks straight from the system and back at once: otherwise what the allocator happens to hold on to
# (tens of MiB, another amount in every run) hides what is measured.
STEADY_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
MODES = ("plain", *SPECS, "eager")
TARGETS = {"answer rows": 1.05, "answer rows, top_k=5": 1.05, "answer + 40 question rows": 1.10}


def build(attention: str, layers: int) -> Any:
    """A random LLaVA: 16 heads, d = 1024, one-layer vision tower of 24 x 24 patches."""
    torch.manual_seed(0)
    text = tf.LlamaConfig(
        vocab_size=4096, hidden_size=1024, intermediate_size=2816, num_hidden_layers=layers, num_attention_heads=16,
        max_position_embeddings=8192, eos_token_id=None, bos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    vision = tf.CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=336, patch_size=14
    )
    config = tf.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, vision_feature_layer=-1
    )
    return tf.LlavaForConditionalGeneration._from_config(config, attn_implementation=attention).eval()


def prompt(images: int) -> tuple[dict[str, torch.Tensor], TokenLayout]:
    """Inputs with ``images`` pictures in one run of image tokens, and their layout."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 4096, (1, BEFORE + PATCHES * images + AFTER), generator=generator)
    ids[0, 0] = 1
    ids[0, BEFORE : BEFORE + PATCHES * images] = IMAGE_TOKEN
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(images, 3, 336, 336, generator=generator),
    }
    return inputs, plain_layout(ids[0].numpy(), np.arange(BEFORE, BEFORE + PATCHES * images))


def generation(model: Any, images: int, new: int, mode: str) -> Callable[[], int]:
    """A function that generates once and returns the bytes kept."""
    inputs, layout = prompt(images)
    common = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}

    def plain() -> int:
        model.generate(**inputs, **common)
        return 0

    def eager() -> int:
        rows = model.generate(**inputs, **common, output_attentions=True, return_dict_in_generate=True).attentions
        return sum(layer.nbytes for step in rows for layer in step)

    def captured() -> int:
        with Session(model, [layout], SPECS[mode], max_new_tokens=new) as session:
            model.generate(**inputs, **common)
        kept = session.finish()[0]
        return kept.attn_lhqk.nbytes + kept.mass_lhqs.nbytes

    return {"plain": plain, "eager": eager}.get(mode, captured)


# -- time --------------------------------------------------------------------------------------------------------------


def time_ratios(images: int, new: int, pairs: int, layers: int, modes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One record per mode: the median ratio of CPU time to the plain model, and its range."""
    fast = build("sdpa", layers)
    runs = {mode: generation(build("eager", layers) if mode == "eager" else fast, images, new, mode) for mode in modes}
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    for mode in modes:
        generation(fast, 1, 2, "plain" if mode == "eager" else mode)()
    for turn in range(pairs):
        order = modes[turn % len(modes) :] + modes[: turn % len(modes)]
        for mode in order:
            if mode != "eager" or images < 5 or turn == 0:
                seconds[mode].append(cpu_seconds(runs[mode]))
    return [_time_record(mode, images, new, seconds) for mode in modes]


def _time_record(mode: str, images: int, new: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    ratios = [own / plain for own, plain in zip(seconds[mode], seconds["plain"], strict=False)]
    return {
        "mode": mode,
        "tokens": BEFORE + AFTER + PATCHES * images,
        "new": new,
        "pairs": len(ratios),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "cpu_s": statistics.median(seconds[mode]),
    }


def step_overhead(images: int, layers: int, steps: int, repeats: int) -> dict[str, Any]:
    """CPU milliseconds of one decode step, plain and with answer rows kept, taking turns step by step."""
    model = build("sdpa", layers)
    inputs, layout = prompt(images)
    spent: dict[str, list[float]] = {"plain": [], "answer rows": []}
    session = Session(model, [layout], SPECS["answer rows"], max_new_tokens=steps * repeats + 2)
    with session, torch.inference_mode():
        cache = model(**inputs, logits_to_keep=1, use_cache=True).past_key_values
        for turn in range(steps * repeats):
            for mode in ("plain", "answer rows") if turn % 2 else ("answer rows", "plain"):
                spent[mode].append(_one_step(model, cache, session, mode == "plain"))
    plain, captured = (statistics.median(spent[mode][2:]) * 1e3 for mode in ("plain", "answer rows"))
    return {
        "tokens": len(layout),
        "plain_ms": plain,
        "captured_ms": captured,
        "overhead_ms": captured - plain,
        "overhead_us_per_layer": (captured - plain) * 1e3 / layers,
    }


def _one_step(model: Any, cache: Any, session: Session, plain: bool) -> float:
    token = torch.tensor([[7]])
    if plain:
        with session.paused():
            start = time.process_time()
            model(input_ids=token, past_key_values=cache, use_cache=True)
            took = time.process_time() - start
        cache.crop(-1)
        return took
    start = time.process_time()
    model(input_ids=token, past_key_values=cache, use_cache=True)
    return time.process_time() - start


# -- memory ------------------------------------------------------------------------------------------------------------


def resident_peak() -> int:
    """Largest resident size of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("VmHWM is not in /proc/self/status")


def memory_child(mode: str, images: int, new: int, layers: int) -> dict[str, Any]:
    """Growth of the peak over one generation in this process; the model is built and warmed up before."""
    model = build("eager" if mode == "eager" else "sdpa", layers)
    generation(model, 1, 2, mode)()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_peak()
    kept = generation(model, images, new, mode)()
    return {"mode": mode, "growth": resident_peak() - before, "kept": kept}


def memory(images: int, new: int, layers: int, modes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One record per mode, each measured in a process of its own."""
    records = []
    for mode in modes:
        command = [sys.executable, __file__, "--child", mode, "--images", str(images), "--new", str(new)]
        command += ["--layers", str(layers)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | STEADY_MALLOC)
        records.append({"tokens": BEFORE + AFTER + PATCHES * images} | json.loads(done.stdout.splitlines()[-1]))
    plain = records[0]["growth"]
    for record in records:
        record["over_plain"] = record["growth"] - plain
    return records


# -- report ------------------------------------------------------------------------------------------------------------


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    print("\nCPU time of one generation, mode / plain in the same turn")
    print(f"{'tokens':>7} {'new':>4}  {'mode':27} {'ratio':>6}  {'range':>15} {'pairs':>5} {'CPU s':>7}  target")
    for one in report["time"]:
        target = TARGETS.get(one["mode"])
        said = "" if target is None else f"<= {target:.2f} {'met' if one['ratio'] <= target else 'MISSED'}"
        span = f"{one['low']:.3f} - {one['high']:.3f}"
        print(
            f"{one['tokens']:7} {one['new']:4}  {one['mode']:27} {one['ratio']:6.3f}  {span:>15} {one['pairs']:5} "
            f"{one['cpu_s']:7.2f}  {said}"
        )
    print("\nOne decode step, CPU ms")
    for one in report["steps"]:
        print(
            f"{one['tokens']:7}  plain {one['plain_ms']:.2f}  captured {one['captured_ms']:.2f}  "
            f"+{one['overhead_ms']:.2f} ms, {one['overhead_us_per_layer']:.0f} us per layer"
        )
    print("\nPeak resident growth of one generation, MiB (a process per mode)")
    for one in report["memory"]:
        growth, over, kept = (one[name] / 2**20 for name in ("growth", "over_plain", "kept"))
        print(f"{one['tokens']:7}  {one['mode']:27} growth {growth:8.1f}  over plain {over:8.1f}  kept {kept:7.1f}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time, steps and memory of every size."""
    sizes = (1,) if options.quick else (1, 2, 5)
    new_tokens = (8,) if options.quick else (8, 32)
    modes = tuple(m for m in MODES if m != "eager" or not options.quick)
    report: dict[str, Any] = {"torch": torch.__version__, "transformers": tf.__version__, "machine": platform.machine()}
    report["pairs"], report["layers"] = options.pairs, options.layers
    report["time"] = [
        one for images in sizes for new in new_tokens
        for one in time_ratios(images, new, options.pairs, options.layers, modes)
    ]  # fmt: skip
    report["steps"] = [step_overhead(images, options.layers, 8, options.pairs) for images in sizes]
    report["memory"] = [one for images in sizes for one in memory(images, 8, options.layers, modes)]
    return report


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="turns per mode")
    parser.add_argument("--quick", action="store_true", help="one size, no eager attention")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write the numbers there as well")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--new", type=int, default=8, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tf.logging.set_verbosity_error()
    if options.child:
        print(json.dumps(memory_child(options.child, options.images, options.new, options.layers)))
        return
    report = measure(options)
    show(report)
    text = json.dumps(report, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
