"""Data set runs: answers by any number of processes, resumable, with a manifest."""

from __future__ import annotations

from vlmattn.evaluate.manifest import Manifest, environment, manifest_of, prompts_hash
from vlmattn.evaluate.plan import batches, seed_of
from vlmattn.evaluate.runner import Decoding, Finished, evaluate
from vlmattn.evaluate.store import Answer, Store, locked, read_results

__all__ = [
    "Answer",
    "Decoding",
    "Finished",
    "Manifest",
    "Store",
    "batches",
    "environment",
    "evaluate",
    "locked",
    "manifest_of",
    "prompts_hash",
    "read_results",
    "seed_of",
]
