"""An adapter for a model type that nobody has declared: guessed from configuration and processor, used only if proved.

The guess is one of two: ``image_grid_thw`` with the processor's ``merge_size`` (the grid follows the picture), or one
fixed view per picture whose tokens fill a square. It is proved by the whole contract, the paint check included, on the
model itself, with pictures of every shape; that costs a few dozen passes of the vision tower, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import numpy as np

from vlmattn.adapters.adapter import Adapter
from vlmattn.adapters.paint import together_faults
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.preprocess import fixed_view
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.core.errors import LayoutError, UnsupportedModel, VlmattnError
from vlmattn.core.layout import ImageLayout, Tile

_PROOF_SIZES = ((64, 64), (90, 60), (333, 777), (640, 480))
_PROOF_PAINTED = ((96, 96), (180, 120), (113, 201), (700, 60), (20, 6), (1600, 1000))
"""Square, wide, tall, thin, tiny and large: what a processor may treat each in its own way."""
EXAMPLE = """from vlmattn.adapters import Adapter, FamilySpec, ImagePlan, register
from vlmattn.adapters.plan import raster
from vlmattn.adapters.tower import Tower
from vlmattn.core.layout import ImageLayout, Tile

@register(FamilySpec(name="mine", model_types=("{kind}",), processors=("{processor}",),
                     image_processors=("{image_processor}",), towers=(), geometry=("base: stretched to 16 x 16",)))
class Mine(Adapter):
    def find_tower(self):
        return Tower("my_tower", 224, 14, 0)  # side of its input, of a patch; tokens before the patches

    def plan(self, image_wh, pictures=1):
        tile = Tile("base", (16, 16), (0.0, 0.0, float(image_wh[0]), float(image_wh[1])))
        return ImagePlan(ImageLayout(image_wh, (tile,), 1), raster(0, (16, 16)), (224, 224), 1)
"""


class Derived(Adapter):
    """The guess; see the module."""

    reads = True

    def find_tower(self) -> Tower:
        """What the configuration says of the tower; nothing is checked yet."""
        vision = self.config.vision_config
        patch = getattr(vision, "patch_size", 0) or getattr(self.image_processor, "patch_size", 0)
        if not isinstance(patch, int) or not patch:
            raise LayoutError("vision_config has no patch_size")
        return Tower(str(getattr(vision, "model_type", "")), 0, patch, 0)

    def read(self, image_wh: tuple[int, int], outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """The grid that ``image_grid_thw`` says, or the square that the picture's tokens fill."""
        if "image_grid_thw" in outputs:
            merge = int(getattr(self.image_processor, "merge_size", 1))
            frames, rows, cols = (int(n) for n in np.asarray(outputs["image_grid_thw"][number]))
            box = (0.0, 0.0, float(image_wh[0]), float(image_wh[1]))
            grid_hw = (frames * rows // merge, cols // merge)
            view_hw = (rows * self.tower.patch_size, cols * self.tower.patch_size)
        else:
            canvas = fixed_view(self.image_processor, image_wh, pads_to_square=True)
            count = self._count(outputs, number)
            side = isqrt(count)
            if side * side != count:
                raise LayoutError(f"{count} image tokens are no square, and the processor gives no image_grid_thw")
            grid_hw, box, view_hw = (side, side), canvas.box_xyxy, (canvas.wh[1], canvas.wh[0])
        return ImagePlan(ImageLayout(image_wh, (Tile("base", grid_hw, box),), 1), raster(0, grid_hw), view_hw, 1)

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Left to the paint check."""

    def _count(self, outputs: Mapping[str, Any], number: int) -> int:
        replaced = [item for line in outputs["text_replacement_offsets"] for item in line]
        return int(replaced[number]["replacement"].count(self.image_token))


def derivable(config: Any) -> bool:
    """Whether a configuration has what a guess needs: a vision configuration and an image token."""
    return getattr(config, "vision_config", None) is not None and getattr(config, "image_token_id", None) is not None


def derive(model: Any, processor: Any) -> Adapter:
    """A guessed and proved adapter.

    Raises:
        UnsupportedModel: nothing could be guessed, or the guess was wrong; says what, and how to declare an adapter.
    """
    from vlmattn.adapters.contract import contract_of

    kind = str(model.config.model_type)
    names = (type(processor).__name__, type(getattr(processor, "image_processor", None)).__name__)
    short = names[1].removesuffix("Pil").removesuffix("Fast")
    spec = FamilySpec(
        name=f"derived ({kind})",
        model_types=(kind,),
        processors=names[:1],
        image_processors=(short,),
        towers=(),
        geometry=("base: guessed from configuration and processor, and proved by painting",),
        notes="Nobody has declared this family.",
    )
    try:
        adapter = Derived(spec, model, processor)
        report = contract_of(adapter, sizes=_PROOF_SIZES, painted=_PROOF_PAINTED, paint=together_faults)
    except (VlmattnError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UnsupportedModel(_advice(kind, names, f"{type(error).__name__}: {error}")) from error
    if not report.ok:
        raise UnsupportedModel(_advice(kind, names, str(report)))
    return adapter


def _advice(kind: str, names: tuple[str, str], why: str) -> str:
    example = EXAMPLE.format(kind=kind, processor=names[0], image_processor=names[1])
    return (
        f"model type {kind!r} is not supported: no family is declared for it, and none could be derived ({why})."
        f" Declare where its image tokens lie, as in\n\n{example}\nand prove it with"
        " vlmattn.adapters.check_adapter(model, processor)"
    )
