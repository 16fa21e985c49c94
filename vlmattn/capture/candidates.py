"""Next-token statistics at each step, from the model's own logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.capture.kept import Candidates
from vlmattn.core.errors import CaptureError

if TYPE_CHECKING:
    from vlmattn.capture.step import BatchPlan, Step


class CandidateLog:
    """Entropy, top candidates and the log-probability of the token that was written, one column per answer token.

    Args:
        top_k: candidates per step. plan: the batch.
    """

    def __init__(self, top_k: int, plan: BatchPlan) -> None:
        self.top_k, self.plan = top_k, plan
        self._entropy: list[torch.Tensor] = []
        self._top: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._chosen: list[torch.Tensor | None] = []
        self._pending: torch.Tensor | None = None

    def add(self, logits: torch.Tensor, step: Step) -> None:
        """Take (B, T, V) logits of a pass; the last one predicts the next token, earlier ones a given answer.

        Raises:
            CaptureError: the logits of a given answer did not come all at once.
        """
        if step.start + step.count < self.plan.prompt_end:
            return
        given = max(len(lay) - lay.answer_start for lay in self.plan.layouts)
        if given:
            self._add_given(logits, given, step)
        else:
            self._keep(logits[:, -1])

    def _add_given(self, logits: torch.Tensor, given: int, step: Step) -> None:
        # Answers of a ragged batch start and end at different places; where one has ended, its last token repeats.
        items = torch.arange(logits.shape[0], device=logits.device)
        pairs = list(zip(self.plan.layouts, self.plan.pad_left, strict=True))
        for number in range(given):
            local = [min(lay.answer_start + number, len(lay) - 1) for lay, _ in pairs]
            rows = torch.tensor([at + pad - 1 - step.start for at, (_, pad) in zip(local, pairs, strict=True)])
            if logits.shape[1] != step.count or int(rows.min()) < 0 or int(rows.max()) >= step.count:
                raise CaptureError(
                    "next-token statistics of a given answer need all its logits in one pass: run prompt and answer at "
                    "once without logits_to_keep, or say top_k=0"
                )
            self._keep(logits[items, rows.to(logits.device)])
            self.settle(torch.tensor([int(lay.input_ids[at]) for at, (lay, _) in zip(local, pairs, strict=True)]))

    def settle(self, tokens: torch.Tensor) -> None:
        """Say which tokens (B,) were written for the last logits."""
        if self._pending is None or tokens.shape[0] != self._pending.shape[0]:
            return
        logp = torch.log_softmax(self._pending.float(), dim=-1)
        self._chosen[-1] = logp.gather(-1, tokens.to(logp.device)[:, None])[:, 0].cpu()
        self._pending = None

    def settle_last(self, sequences: torch.Tensor) -> None:
        """Settle the last step from the finished (B, N) sequences, with the prompt or (after inputs_embeds) without."""
        written = len(self._entropy)
        prompt = self.plan.prompt_end - self.plan.memory
        end = written if sequences.shape[1] == written else prompt + written
        if self._pending is not None and sequences.shape[1] >= end:
            self.settle(sequences[:, end - 1])

    def of(self, item: int, beams: NDArray[np.int64] | None, written: int | None) -> Candidates:
        """Statistics of one sequence; see ``Recording.kept``."""
        given = len(self.plan.layouts[item]) - self.plan.layouts[item].answer_start
        count = min(len(self._entropy), *(n for n in (written, given or None) if n is not None), len(self._entropy))
        lines = [int(beams[t]) if beams is not None and t < len(beams) else item for t in range(count)]
        chosen = [
            np.nan if (c := self._chosen[t]) is None or beams is not None else float(c[item]) for t in range(count)
        ]
        ids = [self._top[t][0][b].numpy() for t, b in enumerate(lines)]
        logp = [self._top[t][1][b].numpy() for t, b in enumerate(lines)]
        return Candidates(
            entropy_t=np.array([float(self._entropy[t][b]) for t, b in enumerate(lines)], dtype=np.float32),
            top_ids_tk=np.stack(ids) if ids else np.empty((0, self.top_k), dtype=np.int64),
            top_logp_tk=np.stack(logp) if logp else np.empty((0, self.top_k), dtype=np.float32),
            chosen_logp_t=np.array(chosen, dtype=np.float32),
        )

    def _keep(self, logits: torch.Tensor) -> None:
        logits = logits.detach()
        logp = torch.log_softmax(logits.float(), dim=-1)
        self._entropy.append(torch.special.entr(logp.exp()).sum(-1).cpu())
        top = logp.topk(min(self.top_k, logp.shape[-1]), dim=-1)
        self._top.append((top.indices.cpu(), top.values.cpu()))
        self._chosen.append(None)
        self._pending = logits.clone()
