"""Changes to a running model, one method per module, each in the terms of its paper."""

from __future__ import annotations

from vlmattn.steering.named import NAMED, steering_of
from vlmattn.steering.replace_heads import ReplaceHeads
from vlmattn.steering.var import PRESETS, VAR

__all__ = ["NAMED", "PRESETS", "VAR", "ReplaceHeads", "steering_of"]
