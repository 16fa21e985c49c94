"""What a capture will cost in memory, known before it runs."""

from __future__ import annotations

from typing import Any

from vlmattn.capture.sites import ModelSites, model_sites
from vlmattn.capture.spec import _BYTES, CaptureEstimate, CaptureSpec
from vlmattn.capture.step import BatchPlan
from vlmattn.core.layout import TokenLayout


def estimate_capture(
    spec: CaptureSpec, model: Any, layouts: tuple[TokenLayout, ...], *, max_new_tokens: int, beams: int
) -> CaptureEstimate:
    """See :meth:`CaptureSpec.estimate`."""
    sites = model_sites(model)
    chosen = spec.resolve_layers(sites)
    width = max(len(spec.resolve_heads(s.layer_idx, s.heads) or range(s.heads)) for s in chosen)
    heads = 1 if spec.reduce else width
    all_heads = max(s.heads for s in chosen)
    written = max_new_tokens if spec.answer_rows() else 0
    columns = max(kept_columns(spec, layout) for layout in layouts)
    segments = max(len(layout.segments()) for layout in layouts)
    batch = len(layouts) * beams
    rows = BatchPlan(spec, layouts, (0,) * len(layouts), len(layouts)).rows_kept(max_new_tokens)
    tokens = max(layout.answer_start for layout in layouts)
    cells = batch * len(chosen) * rows
    windowed = sum(s.windowed for s in chosen)
    hidden = len(sites.blocks) * tokens * batch * 4 * (4 + len(spec.hidden_coords)) if spec.hidden else 0
    parts = {
        "image columns": cells * heads * columns * _BYTES[spec.dtype],
        "segment masses": cells * heads * segments * 4,
        "window": windowed * batch * rows * columns,
        "value norms": batch * len(chosen) * all_heads * columns * 4 if spec.value_norms else 0,
        "head norms": cells * all_heads * 4 if spec.head_norms else 0,
        "hidden states": hidden,
        "next-token candidates": batch * written * (spec.top_k * 12 + 12) if spec.top_k else 0,
        "vision tower": _vision_bytes(spec, sites, layouts),
    }
    return CaptureEstimate(rows=rows, columns=columns, layers=len(chosen), heads=heads, by_part=parts)


def kept_columns(spec: CaptureSpec, layout: TokenLayout) -> int:
    """How many key columns are kept of one sequence."""
    return layout.answer_start if spec.columns == "all" else len(layout.image_positions)


def _vision_bytes(spec: CaptureSpec, sites: ModelSites, layouts: tuple[TokenLayout, ...]) -> int:
    if spec.vision is None:
        return 0
    patches = sum(picture.cells for layout in layouts for picture in layout.images)
    return len(sites.vision) * max((s.heads for s in sites.vision), default=0) * patches * 4


def free_memory(device: Any) -> int:
    """Free bytes of ``device``: of the GPU, or of this machine for the CPU and anything else."""
    import torch

    if getattr(device, "type", None) == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return _system_memory()


def _system_memory() -> int:
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30
