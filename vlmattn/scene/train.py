"""Trains the scene model from nothing: ``python -m vlmattn.scene.train --out DIR --minutes 70``.

Two stages. First the vision tower learns to say, for every patch, colour, shape and size of the object on it (three
linear heads, dropped afterwards). Then everything learns to answer packed questions, with the patch heads and an
alignment term (projected image tokens, read through the tied language head, must name what lies on their patch) kept at
low weight. The language model's attention is never supervised.

Each process uses one thread and half of each batch; gradients are averaged. Progress is measured in time spent, which
checkpoints carry, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.spawn import spawn

from vlmattn.scene import checkpoints
from vlmattn.scene.answering import answers_of
from vlmattn.scene.build import make_model, make_processor, make_tokenizer
from vlmattn.scene.evaluation import evaluate
from vlmattn.scene.objects import COLORS, SHAPES, SIZES
from vlmattn.scene.packing import Packed, Packer
from vlmattn.scene.questions import KINDS, MIX, Question, ask
from vlmattn.scene.samples import Samples, load_samples, make_samples

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
WORDS = {"color": tuple(COLORS), "shape": SHAPES, "size": tuple(SIZES)}
BACKGROUND_WEIGHT = 0.15


@dataclass(frozen=True)
class Recipe:
    """All numbers of a training.

    Attributes:
        vision_minutes, question_minutes: wall-clock budget of the stages. scenes: how many are made.
        vision_batch, question_batch: pictures per step and process. questions: per picture.
        vision_rate, question_rate: highest learning rates. patch_weight, align_weight: of the side losses.
        easy_until: share of the second stage with scenes of at most three objects.
        score_every: minutes between two scores on the validation split, which go into the log.
    """

    vision_minutes: float = 7.0
    question_minutes: float = 62.0
    scenes: int = 30_000
    vision_batch: int = 32
    question_batch: int = 8
    questions: int = 10
    vision_rate: float = 1.5e-3
    question_rate: float = 1.4e-3
    patch_weight: float = 0.2
    align_weight: float = 0.1
    easy_until: float = 0.08
    score_every: float = 8.0


def learning_rate(recipe: Recipe, stage: str, done: float, step: int) -> float:
    """Warm-up, a flat part, then a cosine to 2 %. ``done``: share of the stage's time that has passed."""
    if stage == "vision":
        top, warm, flat = recipe.vision_rate, 100, 0.4
    else:
        top, warm, flat = recipe.question_rate, 150, 0.35
    falling = 1.0 if done < flat else max(0.02, 0.5 * (1 + math.cos(math.pi * (done - flat) / (1 - flat))))
    return top * min(1.0, (step + 1) / warm) * falling


class PatchHeads(nn.ModuleDict):
    """What lies on a patch: colour, shape and size, class 0 for background."""

    def __init__(self, width: int) -> None:
        super().__init__({kind: nn.Linear(width, 1 + len(words)) for kind, words in WORDS.items()})

    def loss(self, features: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy over (B, 64) patches, background weighted down."""
        total = features.new_zeros(())
        for kind, head in self.items():
            weight = torch.tensor([BACKGROUND_WEIGHT] + [1.0] * len(WORDS[kind]))
            total = total + F.cross_entropy(head(features).flatten(0, 1), labels[kind].flatten(), weight=weight)
        return total


class Trainer:
    """One process of a training.

    Args:
        folder: checkpoints, log and samples. recipe: what to do. rank, world: which process of how many.
    """

    def __init__(self, folder: Path, recipe: Recipe, rank: int, world: int) -> None:
        torch.manual_seed(0)
        self.folder, self.recipe, self.rank, self.world = folder, recipe, rank, world
        self.packer = Packer(make_tokenizer())
        self.model = make_model(self.packer.tokenizer).train()
        self._start_weights()
        self.heads = PatchHeads(self.model.config.vision_config.hidden_size)
        self.samples: Samples = load_samples(folder / "samples")
        self.words = {k: torch.tensor([self.packer.ids(f" {w}")[0] for w in v]) for k, v in WORDS.items()}
        self.small = np.array([i for i, s in enumerate(self.samples.scenes) if len(s.objects) <= 3])

    def run(self) -> None:
        """Both stages; each continues from its checkpoint."""
        self._stage("vision", self._vision_loss, self.recipe.vision_minutes)
        self._stage("questions", self._question_loss, self.recipe.question_minutes)

    def _start_weights(self) -> None:
        for name, weight in self.model.named_parameters():
            if weight.ndim > 1 and "vision" in name:
                nn.init.trunc_normal_(weight, std=0.02 if "embed" in name else 0.05)

    # -- stages --------------------------------------------------------------------------------------------------------

    def _stage(self, stage: str, loss_of: Any, minutes: float) -> None:
        parts: dict[str, Any] = {"model": self.model, "heads": self.heads}
        tower = self.model.model.vision_tower.parameters()
        weights = [*(tower if stage == "vision" else self.model.parameters()), *self.heads.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05)
        state = checkpoints.load(self.folder / stage, parts, optimizer)
        step, spent = int(state.get("step", 0)), float(state.get("seconds", 0.0))
        rng = np.random.default_rng([500 + self.rank, step])
        last = self._clock()
        saved = scored = spent
        while spent < minutes * 60:
            done = spent / (minutes * 60)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.recipe, stage, done, step)
            loss = loss_of(rng, done)
            optimizer.zero_grad()
            loss.backward()
            self._average(weights)
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            step += 1
            if step % 5 == 0:
                now = self._clock()
                spent, last = spent + now - last, now
            if step % 50 == 0:
                self._log(stage=stage, step=step, done=round(done, 4), loss=float(loss.detach()))
            if spent - saved > 120:
                saved = spent
                self._save(stage, parts, optimizer, step, spent)
            if stage == "questions" and spent - scored > self.recipe.score_every * 60:
                scored = spent
                self._score(step)
        self._save(stage, parts, optimizer, step, max(spent, minutes * 60))

    def _vision_loss(self, rng: np.random.Generator, done: float) -> torch.Tensor:
        index = rng.integers(0, len(self.samples.scenes), self.recipe.vision_batch)
        return self.heads.loss(self._features(index), self._labels(index))

    def _question_loss(self, rng: np.random.Generator, done: float) -> torch.Tensor:
        pool = self.small if done < self.recipe.easy_until else np.arange(len(self.samples.scenes))
        index = pool[rng.integers(0, len(pool), self.recipe.question_batch)]
        packed = self.packer.pack([self._questions(rng, int(i)) for i in index])
        features = self._features(index)
        projected = self.model.model.multi_modal_projector(features)
        answers = self._answer_loss(packed, projected)
        labels = self._labels(index)
        patch = self.recipe.patch_weight * self.heads.loss(features, labels)
        return answers + patch + self.recipe.align_weight * self._align_loss(projected, labels)

    # -- losses --------------------------------------------------------------------------------------------------------

    def _features(self, index: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(self.samples.pixels[index])).permute(0, 3, 1, 2).float() / 255
        pixels = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        hidden = self.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        return torch.as_tensor(hidden)[:, 1:]

    def _labels(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        labels = {kind: torch.zeros(len(index), self.samples.on_patch.shape[1], dtype=torch.long) for kind in WORDS}
        for line, i in enumerate(index):
            on_patch = torch.from_numpy(self.samples.on_patch[i].astype(np.int64))
            for kind, words in WORDS.items():
                classes = [0, *(1 + words.index(getattr(o, kind)) for o in self.samples.scenes[i].objects)]
                labels[kind][line] = torch.tensor(classes)[on_patch]
        return labels

    def _questions(self, rng: np.random.Generator, index: int) -> list[Question]:
        questions: list[Question] = []
        while len(questions) < self.recipe.questions:
            question = ask(rng, KINDS[rng.choice(len(KINDS), p=MIX)], self.samples.scenes[index])
            if question is not None:
                questions.append(question)
        return questions

    def _answer_loss(self, packed: Packed, projected: torch.Tensor) -> torch.Tensor:
        first, patches = self.packer.first_patch, projected.shape[1]
        embedded = self.model.get_input_embeddings()(packed.ids)
        embedded = torch.cat([embedded[:, :first], projected, embedded[:, first + patches :]], dim=1)
        hidden = self.model.model.language_model(
            inputs_embeds=embedded, attention_mask=packed.mask, position_ids=packed.positions, use_cache=False
        ).last_hidden_state
        counts = packed.weights[:, 1:] > 0
        logits, weights = self.model.lm_head(hidden[:, :-1][counts]), packed.weights[:, 1:][counts]
        losses = F.cross_entropy(logits, packed.ids[:, 1:][counts], reduction="none")
        return (losses * weights).sum() / weights.sum()

    def _align_loss(self, projected: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
        there = labels["color"] > 0
        logp = self.model.lm_head(projected[there]).log_softmax(-1)
        total = logp.new_zeros(())
        for kind, words in self.words.items():
            total = total - logp.gather(1, words[labels[kind][there] - 1][:, None]).mean() / len(WORDS)
        return total

    # -- between processes ---------------------------------------------------------------------------------------------

    def _clock(self) -> float:
        now = torch.tensor([time.time()], dtype=torch.float64)
        if self.world > 1:
            torch.distributed.broadcast(now, 0)
        return float(now)

    def _average(self, weights: list[nn.Parameter]) -> None:
        if self.world == 1:
            return
        grads = [w.grad for w in weights if w.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        torch.distributed.all_reduce(flat)
        start = 0
        for grad in grads:
            grad.copy_(flat[start : start + grad.numel()].view_as(grad) / self.world)
            start += grad.numel()

    def _save(self, stage: str, parts: dict[str, Any], optimizer: Any, step: int, seconds: float) -> None:
        if self.rank == 0:
            checkpoints.save(self.folder / stage, parts, optimizer, {"step": step, "seconds": seconds})

    def _score(self, step: int) -> None:
        if self.rank == 0:
            answer = answers_of(self.model.eval(), make_processor(self.packer.tokenizer))
            scores = evaluate(answer, split="validation", scenes=100, kinds=KINDS[:-1], batch=32)
            self.model.train()
            self._log(stage="validation", step=step, **{s.kind: round(s.accuracy, 3) for s in scores})

    def _log(self, **values: Any) -> None:
        if self.rank == 0:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(values | {"time": time.strftime("%H:%M:%S")}) + "\n")


def _process(rank: int, world: int, folder: Path, recipe: Recipe, port: int) -> None:
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    Trainer(folder, recipe, rank, world).run()
    if world > 1:
        torch.distributed.destroy_process_group()


def main() -> None:
    """Make samples, train, or go on with a training that was stopped; then export."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for samples, checkpoints and log")
    parser.add_argument("--minutes", type=float, default=69.0, help="budget, a tenth of it for the vision stage")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=30_000)
    parser.add_argument("--port", type=int, default=29_611, help="for gradient averaging on this machine")
    given = parser.parse_args()
    vision = given.minutes / 10
    recipe = Recipe(vision_minutes=vision, question_minutes=given.minutes - vision, scenes=given.scenes)
    given.out.mkdir(parents=True, exist_ok=True)
    make_samples(given.out / "samples", recipe.scenes, processes=given.processes)
    arguments = (given.processes, given.out, recipe, given.port)
    spawn(_process, arguments, nprocs=given.processes)
    from vlmattn.scene.export import export

    print(export(given.out / "questions", given.out / "model"))


if __name__ == "__main__":
    main()
