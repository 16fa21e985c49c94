"""A small benchmark of drawn scenes, and a program that answers it: what tests of the runner run and kill."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import vlmattn as va
from vlmattn.evaluate import Decoding, evaluate
from vlmattn.hallucination import Item, Score, check_answers


class Presence:
    """Questions about presence in drawn scenes.

    Args:
        scenes: how many.
    """

    name = "presence"

    def __init__(self, scenes: int = 4) -> None:
        self._items = []
        for index in range(scenes):
            scene, questions = va.scene.split_item("test", 0, index)
            for number, question in enumerate(questions):
                truth = {"answer": question.answer}
                one = Item(f"{index}-{number}", (scene.image,), question.text, str(index), truth)
                self._items.append(one)

    def items(self) -> Sequence[Item]:
        """All of them."""
        return self._items

    def score(self, answers: Mapping[str, str]) -> Score:
        """Share of right answers."""
        check_answers(self._items, answers)
        right = {i.id: float(answers[i.id].casefold() == i.truth["answer"]) for i in self._items}
        return Score(self.name, {"accuracy": sum(right.values()) / len(right)}, {"accuracy": right})


def main() -> None:
    """Answer it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sample", action="store_true")
    given = parser.parse_args()
    generate = {"do_sample": True, "temperature": 2.0} if given.sample else {}
    decoding = Decoding(max_new_tokens=12, generate=generate)
    evaluate(va.load("scene"), Presence(given.scenes), given.folder, batch=given.batch, decoding=decoding)


if __name__ == "__main__":
    main()
