"""Model families: from pictures and words to model inputs whose every token has a known place."""

from vlmattn.adapters.adapter import Adapter
from vlmattn.adapters.encoded import Encoded
from vlmattn.adapters.plan import ImagePlan
from vlmattn.adapters.registry import adapter_for, families, register
from vlmattn.adapters.spec import FamilySpec

__all__ = ["Adapter", "Encoded", "FamilySpec", "ImagePlan", "adapter_for", "families", "register"]
