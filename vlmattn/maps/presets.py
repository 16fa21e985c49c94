"""Named choices of layers, each with the paper it comes from and the rule that carries it to another depth.

A published choice is a range of layer indices in a model of a known depth. For a model of another depth both ends move
in proportion: layer *i* of *n* becomes round((i + 0.5) / n · m − 0.5) of *m*. That is our rule, not the papers'; the
provenance of every map says which layers came out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmattn.core.errors import SpecError
from vlmattn.trace import Trace

Layers = None | int | str | Sequence[int]


@dataclass(frozen=True)
class LayerPreset:
    """One named choice of layers.

    Attributes:
        name: what it is called. first, last: layer indices, inclusive. depth: of the model they were chosen on.
        source: paper and model. note: what was found there.
    """

    name: str
    first: int
    last: int
    depth: int
    source: str
    note: str

    def at_depth(self, depth: int) -> tuple[int, ...]:
        """Layer indices in a model of ``depth`` layers."""
        ends = [round((layer + 0.5) / self.depth * depth - 0.5) for layer in (self.first, self.last)]
        first, last = (min(max(end, 0), depth - 1) for end in ends)
        return tuple(range(first, last + 1))


PRESETS: dict[str, LayerPreset] = {
    p.name: p
    for p in (
        LayerPreset("all", 0, 31, 32, "every layer", "the plain mean; early layers add noise"),
        LayerPreset("middle", 8, 23, 32, "our choice", "the middle half, where most papers find grounded heads"),
        LayerPreset("last_half", 16, 31, 32, "our choice", "layers near the answer"),
        LayerPreset(
            "hgai", 5, 18, 32, "Devils in Middle Layers, CVPR 2025, arXiv 2411.16724, LLaVA-1.5-7B", "visual processing"
        ),
        LayerPreset(
            "var",
            10,
            12,
            32,
            "See What You Are Told, ICLR 2025, arXiv 2503.03321, LLaVA-1.5-7B",
            "layers of its figures",
        ),
        LayerPreset(
            "vicrop", 14, 14, 32, "MLLMs Know Where to Look, ICLR 2025, arXiv 2502.17422, LLaVA-1.5-7B", "one layer"
        ),
        LayerPreset(
            "carve", 20, 25, 32, "Focusing by Contrastive Attention, arXiv 2509.06461, LLaVA-1.5-7B", "best range there"
        ),
    )
}


def choose_layers(trace: Trace, layers: Layers) -> tuple[tuple[int, ...], str]:
    """Layer numbers that a choice means for a trace, and how to say it in provenance.

    Args:
        layers: None for all kept layers, a number, numbers, or a preset's name; negative numbers count from the end.

    Raises:
        SpecError: no such preset or layer.
    """
    depth = max(trace.layers) + 1
    if layers is None:
        return trace.layers, f"all {len(trace.layers)} layers"
    if isinstance(layers, str):
        return _preset(trace, layers, depth)
    numbers = [layers] if isinstance(layers, int) else [int(n) for n in layers]
    chosen = tuple(n + depth if n < 0 else n for n in numbers)
    trace.layer_slots(chosen)
    return chosen, f"layers {_ranges(chosen)}"


def _preset(trace: Trace, name: str, depth: int) -> tuple[tuple[int, ...], str]:
    preset = PRESETS.get(name)
    if preset is None:
        raise SpecError(f"layer preset {name!r} does not exist; there are {', '.join(PRESETS)}")
    chosen = tuple(n for n in preset.at_depth(depth) if n in trace.layers)
    if not chosen:
        wanted = _ranges(preset.at_depth(depth))
        raise SpecError(
            f"preset {name!r} means layers {wanted} here, none of which was kept; kept are {list(trace.layers)}"
        )
    origin = f"{_ranges(range(preset.first, preset.last + 1))} of {preset.depth}"
    return chosen, f"{name}: layers {_ranges(chosen)} of {depth} (published: {origin})"


def _ranges(numbers: Sequence[int]) -> str:
    ordered = sorted(set(numbers))
    parts: list[str] = []
    start = previous = ordered[0]
    for number in [*ordered[1:], None]:
        if number is not None and number == previous + 1:
            previous = number
            continue
        parts.append(str(start) if start == previous else f"{start}-{previous}")
        if number is not None:
            start = previous = number
    return ", ".join(parts)
