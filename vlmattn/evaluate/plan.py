"""Which items run together, decided once for all processes, so that it matters neither how many there are nor how often
they were killed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.hallucination import Item


def batches(items: Sequence[Item], size: int) -> list[tuple[Item, ...]]:
    """Items in batches of alike length, longest first: as many pictures, and prompts of similar length.

    What does not fit is found out at the beginning then, and little is padded.

    Args:
        size: of a batch, at least 1.

    Raises:
        SpecError: no items, ids that occur twice, or a size below 1.
    """
    if size < 1:
        raise SpecError(f"a batch must have at least 1 item, got {size}")
    if not items:
        raise SpecError("the benchmark has no items")
    ids = [item.id for item in items]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise SpecError(f"the id {twice!r} occurs more than once: answers could not be told apart")
    order = sorted(range(len(items)), key=lambda n: (-len(items[n].images), -len(items[n].prompt), n))
    found: list[list[Item]] = []
    for number in order:
        item = items[number]
        if not found or len(found[-1]) == size or len(found[-1][0].images) != len(item.images):
            found.append([])
        found[-1].append(item)
    return [tuple(batch) for batch in found]


def mine(count: int, done: Sequence[int], rank: int, world: int) -> list[int]:
    """Numbers of the batches that a process answers: every ``world``-th of those that are left."""
    held = set(done)
    left = [number for number in range(count) if number not in held]
    return left[rank::world]


def seed_of(seed: int, item_id: str) -> int:
    """The seed of an item: the same whoever answers it, and when."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{item_id}".encode()).digest()[:8], "big") >> 1
