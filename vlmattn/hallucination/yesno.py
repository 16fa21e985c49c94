"""Counts and rates of yes-or-no answers, by the rules of the benchmarks that ask them. The positive class is yes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vlmattn.core.errors import SpecError
from vlmattn.hallucination.parsers import Verdict, find_parser

NAN = float("nan")


@dataclass(frozen=True)
class YesNoProtocol:
    """A parser together with what becomes of answers that it does not understand.

    Attributes:
        name: what scores call it. parser: a name of ``YES_NO_PARSERS``. unparsed: ``"wrong"`` (they count as wrong
            answers, and a missed yes lowers recall), ``"drop"`` (they leave all denominators), or ``"lmms_eval"`` (they
            count as wrong for accuracy alone, and the yes ratio is that of the labels). in_order: whether the official
            program pairs answers with labels by position; here they are always joined by id.
    """

    name: str
    parser: str
    unparsed: str = "wrong"


YES_NO_PROTOCOLS: dict[str, YesNoProtocol] = {
    p.name: p
    for p in (
        YesNoProtocol("official", "pope"),
        YesNoProtocol("opera", "opera"),
        YesNoProtocol("vcd", "vcd"),
        YesNoProtocol("repope", "repope", "drop"),
        YesNoProtocol("dash_b", "dash_b"),
        YesNoProtocol("lmms_eval", "lmms_eval_pope", "lmms_eval"),
        YesNoProtocol("vlmevalkit", "vlmevalkit"),
        YesNoProtocol("strict", "strict"),
    )
}
"""How POPE is scored, by whom."""


def find_protocol(name: str) -> YesNoProtocol:
    """A protocol by name.

    Raises:
        SpecError: there is none; lists those there are.
    """
    if name not in YES_NO_PROTOCOLS:
        raise SpecError(f"protocol {name!r} does not exist; protocols are {', '.join(YES_NO_PROTOCOLS)}")
    return YES_NO_PROTOCOLS[name]


@dataclass(frozen=True)
class Confusion:
    """Counts of answers to questions whose right answer is yes or no.

    Attributes:
        tp, fn, lost_yes: of questions with the answer yes: said yes, said no, said neither. tn, fp, lost_no: of those
            with the answer no.
    """

    tp: int = 0
    fp: int = 0
    tn: int = 0
    fn: int = 0
    lost_yes: int = 0
    lost_no: int = 0

    @property
    def total(self) -> int:
        """All answers."""
        return self.tp + self.fp + self.tn + self.fn + self.lost_yes + self.lost_no

    def metrics(self, unparsed: str = "wrong") -> dict[str, float]:
        """Accuracy, precision, recall, F1, yes ratio and the share of answers not understood, all in [0, 1].

        Where the official programs divide by zero the value is NaN; by the rule of ``lmms_eval`` it is 0.

        >>> Confusion(tp=1183, fp=31, tn=1379, fn=317).metrics()["f1"]
        0.8717759764185703
        """
        lost = self.lost_yes + self.lost_no
        kept = self.total - lost if unparsed == "drop" else self.total
        missed = self.fn + (self.lost_yes if unparsed == "wrong" else 0)
        empty = 0.0 if unparsed == "lmms_eval" else NAN
        precision = share(self.tp, self.tp + self.fp, empty)
        recall = share(self.tp, self.tp + missed, empty)
        said = self.tp + self.fn + self.lost_yes if unparsed == "lmms_eval" else self.tp + self.fp
        return {
            "accuracy": share(self.tp + self.tn, kept, empty),
            "precision": precision,
            "recall": recall,
            "f1": share(2 * precision * recall, precision + recall, empty),
            "yes_ratio": share(said, kept, empty),
            "unparsed": share(lost, self.total, NAN),
        }


def share(part: float, whole: float, empty: float = NAN) -> float:
    """``part / whole``, or ``empty`` where there is nothing to divide by."""
    return part / whole if whole else empty


def confusion(pairs: Iterable[tuple[Verdict, Verdict | None]]) -> Confusion:
    """Counts of (right answer, answer understood)."""
    cells = dict.fromkeys(("tp", "fp", "tn", "fn", "lost_yes", "lost_no"), 0)
    for label, said in pairs:
        cells[cell(label, said)] += 1
    return Confusion(**cells)


def cell(label: Verdict, said: Verdict | None) -> str:
    """Which count of :class:`Confusion` an answer belongs to."""
    if said is None:
        return f"lost_{label}"
    return ("tp" if label == "yes" else "fp") if said == "yes" else ("fn" if label == "yes" else "tn")


def understood(text: str, label: Verdict, protocol: YesNoProtocol) -> Verdict | None:
    """What an answer says, by a protocol's parser."""
    return find_parser(protocol.parser).parse(text, label)
