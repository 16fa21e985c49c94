"""What a capture will cost in memory, known before it runs."""

from __future__ import annotations

from typing import Any

from vlmattn.capture.sites import ModelSites, model_sites
from vlmattn.capture.spec import _BYTES, CaptureEstimate, CaptureSpec
from vlmattn.capture.step import BatchPlan
from vlmattn.capture.tower import tokens_per_view, views_of
from vlmattn.core.errors import CaptureError
from vlmattn.core.layout import TokenLayout


def estimate_capture(
    spec: CaptureSpec,
    model: Any,
    layouts: tuple[TokenLayout, ...],
    pads: tuple[int, ...],
    *,
    max_new_tokens: int,
    beams: int,
) -> CaptureEstimate:
    """See :meth:`CaptureSpec.estimate`."""
    if not layouts:
        raise CaptureError("no layout was given: a capture needs one for each sequence")
    sites = model_sites(model)
    chosen = spec.resolve_layers(sites)
    kept = zip(chosen, spec.resolve_heads(chosen, sites), strict=True)
    heads = 1 if spec.reduce else max(len(some) if some is not None else site.heads for site, some in kept)
    all_heads = max(s.heads for s in chosen)
    columns = max(kept_columns(spec, layout) for layout in layouts)
    segments = max(len(layout.segments()) for layout in layouts)
    batch = len(layouts) * beams
    plan = BatchPlan(spec, layouts, pads, len(layouts))
    rows = plan.rows_kept(max_new_tokens)
    cells = batch * len(chosen) * rows
    tokens = batch * (plan.prompt_end - plan.memory)
    written = batch * _written(spec, layouts, max_new_tokens)
    parts = {
        "image columns": cells * heads * columns * _BYTES[spec.dtype],
        "segment masses": cells * heads * segments * 4,
        "visible columns": _lines(chosen) * batch * rows * columns,
        "value norms": batch * len(chosen) * all_heads * columns * 4 if spec.value_norms else 0,
        "head norms": cells * all_heads * 4 if spec.head_norms else 0,
        "hidden states": len(sites.blocks) * tokens * _hidden_bytes(spec) if spec.hidden else 0,
        "received attention": len(chosen) * (4 * all_heads + 8) * tokens if spec.received else 0,
        "next-token candidates": written * (spec.top_k * 12 + 8) if spec.top_k else 0,
        "vision tower": _vision_bytes(spec, model, sites, layouts) * beams,
    }
    return CaptureEstimate(rows=rows, columns=columns, layers=len(chosen), heads=heads, by_part=parts)


def _hidden_bytes(spec: CaptureSpec) -> int:
    # Of one token in one layer; coordinates are counted in 8 bytes.
    return 4 * (4 + len(spec.hidden_coords)) + (12 * spec.hidden_top + 4 if spec.hidden_top else 0)


def kept_columns(spec: CaptureSpec, layout: TokenLayout) -> int:
    """How many key columns are kept of one sequence, those of a resampler's queries counted."""
    kept = layout.answer_start if spec.columns == "all" else len(layout.image_positions)
    return kept + len(layout.latent_positions)


def _written(spec: CaptureSpec, layouts: tuple[TokenLayout, ...], max_new_tokens: int) -> int:
    given = max(len(layout) - layout.answer_start for layout in layouts)
    return (given or max_new_tokens) if spec.answer_rows() else 0


def _lines(chosen: Any) -> int:
    # One for every layer with a window, one for all layers of a kind without.
    return sum(site.windowed for site in chosen) + len({site.kind for site in chosen if not site.windowed})


def _vision_bytes(spec: CaptureSpec, model: Any, sites: ModelSites, layouts: tuple[TokenLayout, ...]) -> int:
    if spec.vision is None:
        return 0
    views = sum(views_of(layout) or len(layout.images) for layout in layouts)
    tokens = tokens_per_view(model, sites)
    if tokens is None:  # a tower of no fixed size: as many as reach the language model
        views, tokens = 1, sum(picture.cells for layout in layouts for picture in layout.images)
    return len(sites.vision) * max((s.heads for s in sites.vision), default=0) * views * tokens * 4


def home_of(module: Any) -> Any:
    """The device that ``module`` computes on, also where its weights are fetched for each call."""
    import torch

    held = next((p.device for p in module.parameters()), torch.device("cpu"))
    if held.type != "meta":
        return held
    told: list[Any] = [getattr(getattr(m, "_hf_hook", None), "execution_device", None) for m in module.modules()]
    device = next((one for one in told if one is not None), "cpu")
    return torch.device(device)


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
