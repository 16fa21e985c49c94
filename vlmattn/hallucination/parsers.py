"""What a free answer says to a yes-or-no question: one parser for each way in use, quirks and all.

Published numbers depend on the parser as much as on the model, so a score names its parser. ``strict`` is the only one
that is not taken from a benchmark or harness: it says None where the words leave a doubt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vlmattn.core.errors import SpecError

Verdict = Literal["yes", "no"]
Parse = Callable[[str, Verdict | None], Verdict | None]

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


@dataclass(frozen=True)
class YesNoParser:
    """A way to read an answer.

    Attributes:
        name: what scores call it. rule: in words. source: who reads answers so. needs_label: whether it looks at the
            right answer, too, so that a text can be right whatever the question.
    """

    name: str
    rule: str
    source: str
    parse: Parse
    needs_label: bool = False


def parse_yes_no(text: str, parser: str = "strict", *, label: Verdict | None = None) -> Verdict | None:
    """``"yes"``, ``"no"`` or None, as a parser of :data:`YES_NO_PARSERS` reads ``text``.

    >>> parse_yes_no("NO."), parse_yes_no("NO.", "pope"), parse_yes_no("Yes and no")
    ('no', 'yes', None)

    Raises:
        SpecError: no such parser, or it needs the label and got none.
    """
    rule = find_parser(parser)
    if rule.needs_label and label is None:
        raise SpecError(f"parser {parser!r} reads an answer by its right answer: give label='yes' or 'no'")
    return rule.parse(text, label)


def find_parser(name: str) -> YesNoParser:
    """A parser by name.

    Raises:
        SpecError: there is none; lists those there are.
    """
    if name not in YES_NO_PARSERS:
        raise SpecError(f"parser {name!r} does not exist; parsers are {', '.join(YES_NO_PARSERS)}")
    return YES_NO_PARSERS[name]


def _blind(read: Callable[[str], Verdict | None]) -> Parse:
    return lambda text, _: read(text)


def _pope(text: str) -> Verdict:
    # Only the first sentence; a line break glues words together, and case counts.
    tokens = text.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if any(t in ("No", "no", "not") for t in tokens) else "yes"


def _opera(text: str) -> Verdict:
    tokens = text.replace(".", "").replace(",", "").split(" ")
    return "no" if any(t in ("No", "not", "no", "NO") or t.endswith("n't") for t in tokens) else "yes"


def _vcd(text: str, label: Verdict | None) -> Verdict:
    low = text.lower().strip()
    if label == "yes":
        return "yes" if "yes" in low else "no"
    return "no" if "no" in low else "yes"


def _substring(text: str) -> Verdict | None:
    # "not" holds "no", so a third test for it changes nothing.
    low = text.lower()
    return "yes" if "yes" in low else "no" if "no" in low else None


def _exact(text: str) -> Verdict | None:
    return _as_verdict(text.lower().strip())


def _mme(text: str) -> Verdict | None:
    low = text.lower().strip().replace(".", "")
    if low in ("yes", "y"):
        return "yes"
    if low in ("no", "n"):
        return "no"
    return "yes" if "yes" in low[:4] else "no" if "no" in low[:4] else None


def _vlmevalkit(text: str) -> Verdict | None:
    tokens = _without_punctuation(text.lower()).split()
    return _only(tokens)


def _without_punctuation(text: str) -> str:
    glued = re.search(r"\d,\d", text) is not None
    out = text
    for mark in _PUNCTUATION:
        apart = glued or f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if apart else " ")
    # A flag of value 32 stands where the number of replacements belongs: full stops after the 32nd stay.
    return re.sub(r"\.(?!\d)", "", out, count=32)


def _openchair(text: str) -> Verdict | None:
    tokens = re.sub(r"[,.;]", "", text.lower()).replace("\n", " ").split()
    return "yes" if "yes" in tokens else "no" if "no" in tokens or "not" in tokens else None


def _amber(text: str) -> Verdict | None:
    return _as_verdict(text.lower()) if text in ("Yes", "No") else None


def _strict(text: str) -> Verdict | None:
    return _only([w.casefold() for w in _WORD.findall(text)])


def _only(words: list[str]) -> Verdict | None:
    yes, no = "yes" in words, "no" in words
    return None if yes == no else "yes" if yes else "no"


def _as_verdict(text: str) -> Verdict | None:
    return "yes" if text == "yes" else "no" if text == "no" else None


YES_NO_PARSERS: dict[str, YesNoParser] = {
    p.name: p
    for p in (
        YesNoParser(
            "pope",
            "no if the first sentence, split at spaces, holds No, no or not; else yes",
            "POPE, evaluate.py; LLaVA, eval_pope.py",
            _blind(_pope),
        ),
        YesNoParser(
            "opera",
            "no if the text, split at spaces, holds No, no, NO, not or a word in n't; else yes",
            "OPERA, PAI",
            _blind(_opera),
        ),
        YesNoParser("vcd", "the right answer if it occurs anywhere, even inside words; else the wrong one", "VCD",
                    _vcd, needs_label=True),
        YesNoParser("repope", "yes if it occurs anywhere, else no if it does, else nothing", "RePOPE",
        _blind(_substring)),
        YesNoParser("dash_b", "yes if it occurs anywhere, else no if it does, else nothing", "DASH-B",
        _blind(_substring)),
        YesNoParser("lmms_eval_pope", "the whole answer is yes or no, in any case", "lmms-eval, pope", _blind(_exact)),
        YesNoParser(
            "lmms_eval_mme",
            "yes, no, y or n without full stops, or yes or no within the first four characters",
            "lmms-eval, mme",
            _blind(_mme),
        ),
        YesNoParser("lmms_eval_amber", "yes if it occurs anywhere, else no if it does", "lmms-eval, amber",
        _blind(_substring)),
        YesNoParser(
            "vlmevalkit",
            "the word yes without the word no, or the other way round, after VQA's removal of punctuation",
            "VLMEvalKit, YOrN_Extraction",
            _blind(_vlmevalkit),
        ),
        YesNoParser("openchair", "the word yes, else the word no or not, else nothing", "OpenCHAIR, judge",
        _blind(_openchair)),
        YesNoParser("amber", "exactly Yes or No", "AMBER, inference.py", _blind(_amber)),
        YesNoParser("strict", "the word yes without the word no, or the other way round, in any case", "vlmattn",
                    _blind(_strict)),
    )
}  # fmt: skip
"""Every parser by name."""
