"""From the lines of a batch to output sequences: which record belongs to which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.capture.kept import KeptRows
from vlmattn.capture.recording import Recording
from vlmattn.core.errors import CaptureError


def kept_outputs(
    recording: Recording,
    beam_indices: torch.Tensor | None,
    lengths: Sequence[int] | None,
    sequences: torch.Tensor | None,
) -> tuple[KeptRows, ...]:
    """See :meth:`Session.finish`."""
    recording.check_complete()
    lines = _beam_lines(beam_indices)
    outputs = len(lines) if lines is not None else len(recording.plan.layouts)
    if lines is None and (recording.order.changed() or (sequences is not None and len(sequences) != outputs)):
        raise CaptureError(
            f"{outputs} lines ran and changed places (beam search), so which row belongs to which sequence is not "
            "known: pass beam_indices of what generate(..., return_dict_in_generate=True) gives"
        )
    if lengths is not None and len(lengths) != outputs:
        raise CaptureError(f"lengths must have one entry per output sequence, {outputs}; got {len(lengths)}")
    if recording.candidates is not None and sequences is not None and lines is None:
        recording.candidates.settle_last(sequences)
    kept = []
    for index in range(outputs):
        beams = lines[index] if lines is not None else None
        item = int(beams[0]) if beams is not None and len(beams) else index
        written = lengths[index] if lengths is not None else (len(beams) if beams is not None else None)
        kept.append(recording.kept(item, beams, written))
    return tuple(kept)


def _beam_lines(beam_indices: torch.Tensor | None) -> list[NDArray[np.int64]] | None:
    if beam_indices is None:
        return None
    return [line[line >= 0] for line in beam_indices.cpu().numpy().astype(np.int64)]
