"""Changes to a running model, one method per module, each in the terms of its paper."""

from __future__ import annotations

from vlmattn.steering.knock_out import KnockOut
from vlmattn.steering.named import NAMED, steering_of
from vlmattn.steering.replace_heads import ReplaceHeads
from vlmattn.steering.scale_heads import ScaleHeads
from vlmattn.steering.var import PRESETS, VAR

__all__ = ["NAMED", "PRESETS", "VAR", "KnockOut", "ReplaceHeads", "ScaleHeads", "steering_of"]
