"""Model families: from pictures and words to model inputs whose every token has a known place."""

from vlmattn.adapters.adapter import Adapter
from vlmattn.adapters.contract import ContractReport, check_adapter
from vlmattn.adapters.encoded import Encoded
from vlmattn.adapters.plan import ImagePlan
from vlmattn.adapters.registry import adapter_for, check_config, check_pair, families, register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.videos import VideoSpec

__all__ = [
    "Adapter",
    "ContractReport",
    "Encoded",
    "FamilySpec",
    "ImagePlan",
    "VideoSpec",
    "adapter_for",
    "check_adapter",
    "check_config",
    "check_pair",
    "families",
    "register",
]
