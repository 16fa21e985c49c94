"""What maps cost that need every attention row, or gradients; where they point is in ``maps.py``.

``python benchmarks/attribution.py`` (``--quick`` for a first look). One sequence of a random LLaVA of 16 heads: CPU
time over one forward pass in the same turn, memory as growth of the peak in a process of its own, both beside eager
attention that keeps every matrix in the graph of gradients; and the time of a flow by its number of nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf

from benchmarks.capture import AFTER, BEFORE, PATCHES, STEADY_MALLOC, build, prompt, resident_peak
from benchmarks.paired import cpu_seconds
from vlmattn.capture.whole import WholePass
from vlmattn.maps.attention_flow import attention_flow, contracted
from vlmattn.maps.attention_rollout import attention_rollout
from vlmattn.maps.relevancy import relevancy

MODES = ("forward", "rollout", "relevancy", "eager")
MOST_EAGER = 2
"""Pictures up to which eager attention is run: with 5 it takes 1 GiB and more per layer."""


# -- cost --------------------------------------------------------------------------------------------------------------


def work(model: Any, images: int, mode: str) -> Callable[[], Any]:
    """One pass over one prompt, with what the mode makes of its last row."""
    inputs, layout = prompt(images)
    last = [len(layout) - 1]

    def forward() -> None:
        with torch.no_grad():
            model(**inputs, use_cache=False, logits_to_keep=1)

    def rollout() -> Any:
        return attention_rollout(WholePass(model).run(inputs), last)

    def relevant() -> Any:
        return relevancy(WholePass(model).run(inputs, last, [7], "logit").differentiate(), last)

    def eager() -> Any:
        out = model(**inputs, use_cache=False, logits_to_keep=1, output_attentions=True)
        slopes = torch.autograd.grad(out.logits[0, -1, 7], out.attentions)
        carried = torch.eye(len(layout))
        for rows, slope in zip(out.attentions, slopes, strict=True):
            carried = carried + (rows.detach() * slope).clamp(min=0)[0].mean(0) @ carried
        return carried[last].numpy()

    return {"forward": forward, "rollout": rollout, "relevancy": relevant, "eager": eager}[mode]


def time_ratios(images: int, pairs: int, layers: int) -> list[dict[str, Any]]:
    """One record per mode: median over turns of its CPU time over that of a forward pass."""
    fast, slow = build("sdpa", layers), build("eager", layers)
    modes = _modes(images)
    runs = {mode: work(slow if mode == "eager" else fast, images, mode) for mode in modes}
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    for turn in range(-1, pairs):
        for mode in modes[turn % len(modes) :] + modes[: turn % len(modes)]:
            spent = cpu_seconds(runs[mode])
            if turn >= 0:
                seconds[mode].append(spent)
    out = []
    for mode in modes:
        ratios = [own / plain for own, plain in zip(seconds[mode], seconds["forward"], strict=True)]
        told = {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
        out.append({"mode": mode, "tokens": _tokens(images), "cpu_s": statistics.median(seconds[mode]), **told})
    return out


def memory(images: int, layers: int) -> list[dict[str, Any]]:
    """One record per mode: growth of the peak over one run, in a process of its own."""
    records = []
    for mode in _modes(images):
        command = [sys.executable, __file__, "--child", mode, "--images", str(images), "--layers", str(layers)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | STEADY_MALLOC)
        records.append({"tokens": _tokens(images), "mode": mode, "growth": json.loads(done.stdout.splitlines()[-1])})
    return records


def memory_child(mode: str, images: int, layers: int) -> int:
    """Growth of the peak over one run in this process; the model is warmed up before."""
    model = build("eager" if mode == "eager" else "sdpa", layers).requires_grad_(False)
    if mode == "eager":  # without weights that ask for gradients, the graph begins at the embeddings
        model.get_input_embeddings().weight.requires_grad_(True)
    inputs, _ = prompt(1)
    with torch.no_grad():
        model(**inputs, use_cache=False, logits_to_keep=1)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_peak()
    work(model, images, mode)()
    return resident_peak() - before


def flow_seconds(layers: int, sides: tuple[int, ...] = (4, 6, 8, 12)) -> list[dict[str, Any]]:
    """CPU time of a word's flow over one picture's tokens in blocks, after the pass: capacities, then all blocks."""
    model = build("sdpa", layers)
    inputs, layout = prompt(1)
    passed = WholePass(model).run(inputs)
    out = []
    for side in sides:
        block = np.arange(24) * side // 24
        groups = np.concatenate(
            [[0], np.full(BEFORE - 1, 1), 2 + (block[:, None] * side + block).ravel(), np.full(AFTER - 1, 2 + side**2)]
        )
        groups = np.append(groups, groups[-1] + 1)
        made: list[Any] = []
        first = cpu_seconds(lambda made=made, groups=groups: made.append(contracted(passed, groups)))
        second = cpu_seconds(lambda c=made[0], side=side: attention_flow(c, len(c[0]) - 1, range(2, 2 + side**2)))
        told = {"tokens": len(layout), "nodes": int(groups[-1]) + 1, "side": side}
        out.append(told | {"capacities_s": first, "flows_s": second})
    return out


def _modes(images: int) -> tuple[str, ...]:
    return MODES if images <= MOST_EAGER else MODES[:-1]


def _tokens(images: int) -> int:
    return BEFORE + AFTER + PATCHES * images


# -- report ------------------------------------------------------------------------------------------------------------


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    print("\nCPU time over one forward pass in the same turn")
    for one in report["time"]:
        span = f"{one['low']:.2f} - {one['high']:.2f}"
        print(f"{one['tokens']:6} tokens  {one['mode']:10} {one['ratio']:6.2f}  ({span})  {one['cpu_s']:.2f} s")
    print("\nGrowth of the peak over one run, MiB")
    for one in report["memory"]:
        print(f"{one['tokens']:6} tokens  {one['mode']:10} {one['growth'] / 2**20:8.1f}")
    print("\nFlow, CPU seconds after the pass")
    for one in report["flow"]:
        flows = f"capacities {one['capacities_s']:.2f}  {one['side'] ** 2} flows {one['flows_s']:.2f}"
        print(f"{one['tokens']:6} tokens as {one['nodes']} nodes  {flows}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="turns per mode")
    parser.add_argument("--quick", action="store_true", help="one size")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write the numbers there as well")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    tf.logging.set_verbosity_error()
    if given.child:
        print(memory_child(given.child, given.images, given.layers))
        return
    sizes = (1,) if given.quick else (1, 2, 5)
    report = {
        "time": [one for images in sizes for one in time_ratios(images, given.pairs, given.layers)],
        "memory": [one for images in sizes for one in memory(images, given.layers)],
        "flow": flow_seconds(given.layers),
    }
    show(report)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
