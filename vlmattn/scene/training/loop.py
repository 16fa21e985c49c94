"""One stage of a training: on one process or several, from its checkpoint if there is one, to the same result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from vlmattn.scene.training import checkpoints
from vlmattn.scene.training.batches import Draw
from vlmattn.scene.training.recipes import Stage

_LOG_EVERY = 50


class Loop:
    """Runs stages one after the other.

    Batches depend on seed, stage, step and process alone, rates on the step alone; checkpoints hold weights and the
    optimiser's moments. So a run that was killed ends with the weights of one that was not, on the same number of
    processes.

    Args:
        folder: of checkpoints and ``log.jsonl``. seed: of batches. save_every: steps between checkpoints.
    """

    def __init__(self, folder: Path, seed: int, *, save_every: int = 250, cpu: bool = False) -> None:
        self.accelerator = Accelerator(cpu=cpu)
        self.folder, self.seed, self.save_every = folder, seed, save_every

    def run(
        self,
        stage: Stage,
        number: int,
        objective: nn.Module,
        draw: Draw,
        *,
        score: Callable[[], dict[str, float]] | None = None,
        score_every: int = 1_000,
    ) -> None:
        """Do what is left of a stage.

        Args:
            stage: its numbers. number: which one, for the seed. objective: gives a dict of losses. draw: gives its
                arguments. score: called on the main process every ``score_every`` steps; goes into the log.
        """
        weights = [w for w in objective.parameters() if w.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=stage.rate, betas=(0.9, 0.98), weight_decay=0.05)
        first = int(checkpoints.load(self.folder / stage.name, objective, optimizer).get("step", 0))
        if first >= stage.steps:
            return
        ready, optimizer = self.accelerator.prepare(objective.train(), optimizer)
        started = time.perf_counter()
        for step in range(first, stage.steps):
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate(step)
            rng = np.random.default_rng([self.seed, number, step, self.accelerator.process_index])
            losses = ready(*(self._placed(part) for part in draw(rng, step)))
            self.accelerator.backward(sum(losses.values()))
            self.accelerator.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done = step + 1
            if done % _LOG_EVERY == 0 or done == stage.steps:
                pace = (done - first) / (time.perf_counter() - started)
                self.log(stage=stage.name, step=done, pace=round(pace, 2), **_numbers(losses))
            if done % self.save_every == 0 or done == stage.steps:
                self._save(stage, objective, optimizer, done)
            if score is not None and (done % score_every == 0 or done == stage.steps):
                if self.accelerator.is_main_process:
                    self.log(stage=stage.name, step=done, **score())
                objective.train()
                self.accelerator.wait_for_everyone()
        self.accelerator.wait_for_everyone()

    def log(self, **values: Any) -> None:
        """One line of ``log.jsonl``."""
        if self.accelerator.is_main_process:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(values | {"time": time.strftime("%Y-%m-%dT%H:%M:%S")}) + "\n")

    def _save(self, stage: Stage, objective: nn.Module, optimizer: Any, step: int) -> None:
        if self.accelerator.is_main_process:
            plain = self.accelerator.unwrap_model(objective)
            checkpoints.save(self.folder / stage.name, plain, optimizer.optimizer, {"step": step, "seed": self.seed})

    def _placed(self, part: Any) -> Any:
        return part.to(self.accelerator.device)


def _numbers(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: round(float(value.detach()), 5) for name, value in losses.items()}
