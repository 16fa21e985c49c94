"""What the runner adds to a bare loop of processor, generate and decode; and whether its memory grows.

``python -m benchmarks.runner --pairs 5 --items 5000`` on a quiet core. Time: the same batches of questions about drawn
scenes answered by ``evaluate`` and by the loop, in turns, CPU time of this process; the ratio is the median over turns.
As turns are noisy, what the runner adds is also clocked inside one run. Of the model in the box, whose own work is
tiny, and of a random LLaVA with its eyes and a decoder of 12 layers, d = 1,024. Memory: resident size of one run over
many items of the model in the box, a hundred times on the way.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import vlmattn as va
from benchmarks.paired import cpu_seconds
from vlmattn.evaluate import Decoding, batches, evaluate
from vlmattn.hallucination import Item, Score
from vlmattn.scene import split_item

BATCH = 8


class Presence:
    """Questions of presence about the first scenes of a split; scenes are drawn anew as often as asked about."""

    name = "presence"

    def __init__(self, count: int, scenes: int = 32) -> None:
        drawn = [split_item("random", 0, n) for n in range(scenes)]
        asked = [(scene.image, q.text) for scene, questions in drawn for q in questions if q.kind == "exist"]
        self._items = [Item(str(n), (asked[n % len(asked)][0],), asked[n % len(asked)][1]) for n in range(count)]

    def items(self) -> Sequence[Item]:
        """All of them."""
        return self._items

    def score(self, answers: Any) -> Score:
        """Nothing is scored here."""
        return Score(self.name, {}, {})


def larger() -> va.Vlm:
    """A random model with the eyes and the processor of the one in the box, and a decoder of 12 layers, d = 1,024."""
    small = va.load("scene")
    config = type(small.model.config).from_dict(small.model.config.to_dict())
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 1024, 2816, 12
    text.num_attention_heads = text.num_key_value_heads = 16
    text.head_dim, text.eos_token_id = 64, None
    torch.manual_seed(0)
    model = type(small.model)._from_config(config, attn_implementation="sdpa").eval()
    model.generation_config.eos_token_id = None
    return va.load(model, small.adapter.processor)


def bare(vlm: va.Vlm, items: Sequence[Item], new: int) -> list[str]:
    """What a script of one's own would do: processor, generate, decode, batch by batch."""
    processor, said = vlm.adapter.processor, []
    for part in batches(items, BATCH):
        texts = [processor.apply_chat_template(_message(item), add_generation_prompt=True) for item in part]
        pictures = [[item.images[0]] for item in part]
        inputs = processor(images=pictures, text=texts, padding=True, padding_side="left", return_tensors="pt")
        with torch.no_grad():
            ids = vlm.model.generate(**inputs, max_new_tokens=new, do_sample=False)
        said += processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return said


def _message(item: Item) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": item.prompt}]}]


def ratio(vlm: va.Vlm, items: int, new: int, pairs: int) -> tuple[float, float, float, float]:
    """Median, least and largest of runner / loop over turns, and seconds of the loop per item."""
    bench, found, spent = Presence(items), [], []

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            evaluate(vlm, bench, folder, decoding=Decoding(max_new_tokens=new), batch=BATCH)

    def loop() -> None:
        bare(vlm, bench.items(), new)

    ours(), loop()
    for turn in range(pairs):
        first, second = (ours, loop) if turn % 2 else (loop, ours)
        times: dict[Callable[[], None], float] = {run: cpu_seconds(run) for run in (first, second)}
        found.append(times[ours] / times[loop])
        spent.append(times[loop] / items)
    return statistics.median(found), min(found), max(found), statistics.median(spent)


def added(vlm: va.Vlm, items: int, new: int) -> tuple[float, float]:
    """Clocked inside one run: CPU time of all but processor and generate, over theirs; and milliseconds an item."""
    bench, theirs = Presence(items), [0.0]

    def clocked(run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return run(*args, **options)
            finally:
                theirs[0] += time.process_time() - start

        return call

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            evaluate(vlm, bench, folder, decoding=Decoding(max_new_tokens=new), batch=BATCH)

    kind = type(vlm.adapter.processor)
    with (
        patch.object(vlm.model, "generate", clocked(vlm.model.generate)),
        patch.object(kind, "__call__", clocked(kind.__call__)),
    ):
        whole = cpu_seconds(ours)
    return (whole - theirs[0]) / theirs[0], 1e3 * (whole - theirs[0]) / items


def memory(items: int) -> list[float]:
    """Resident MiB, about a hundred times during one run."""
    vlm, bench, seen = va.load("scene"), Presence(items), []

    def note(done: int, of: int) -> None:
        if done % max(BATCH, of // 100 // BATCH * BATCH) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            seen.append(pages * 4096 / 2**20)

    with tempfile.TemporaryDirectory() as folder:
        evaluate(vlm, bench, folder, decoding=Decoding(max_new_tokens=4), batch=BATCH, progress=note)
    return seen


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--items", type=int, default=5000, help="of the memory run; 0 for none")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, vlm, items, new in (("scene", va.load("scene"), 128, 4), ("12 layers, d = 1,024", larger(), 16, 16)):
        middle, low, high, seconds = ratio(vlm, items, new, given.pairs)
        print(f"{name}: runner / loop {middle:.3f} ({low:.3f} to {high:.3f}), loop {1e3 * seconds:.1f} ms an item")
        share, own = added(vlm, items, new)
        print(f"{name}: clocked inside, the runner adds {share:.2%}, {own:.2f} ms an item")
    if given.items:
        seen = memory(given.items)
        tenth = max(1, len(seen) // 10)
        slope = float(np.polyfit(np.linspace(0, given.items, len(seen))[tenth:], seen[tenth:], 1)[0])
        print(f"memory over {given.items} items: after a tenth {seen[tenth]:.0f} MiB, at the end {seen[-1]:.0f} MiB, "
              f"most {max(seen):.0f} MiB, slope {1024 * slope:.2f} KiB an item")  # fmt: skip


if __name__ == "__main__":
    main()
