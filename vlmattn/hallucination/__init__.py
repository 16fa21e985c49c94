"""Hallucination: benchmarks and their scorers."""

from __future__ import annotations

from vlmattn.hallucination.amber import (
    AmberGenerative,
    AmberImage,
    amber_nouns,
    exact_similarity,
    load_amber,
    spacy_similarity,
)
from vlmattn.hallucination.amber_yesno import AmberDiscriminative, AmberQuestion, amber_score, load_amber_questions
from vlmattn.hallucination.answers import read_answers, write_answers
from vlmattn.hallucination.benchmark import Benchmark, Item, Score, check_answers
from vlmattn.hallucination.chair import CHAIR_PROMPTS, CaptionScore, Chair, chair_metrics, score_caption
from vlmattn.hallucination.chair_truth import coco_truth, load_truth, save_truth
from vlmattn.hallucination.hallusion import HallusionBench, HallusionQuestion, load_hallusionbench
from vlmattn.hallucination.judged import Mmhal, MmhalQuestion, ObjectHalBench, load_mmhal, mmhal_rating
from vlmattn.hallucination.mme import Mme, MmeQuestion, load_mme, read_mme_answers
from vlmattn.hallucination.parsers import YES_NO_PARSERS, YesNoParser, parse_yes_no
from vlmattn.hallucination.pope import POPE_PROMPTS, Pope, PopeQuestion, load_pope, questions_of, relabel
from vlmattn.hallucination.pope_build import build_pope, pope_statistics
from vlmattn.hallucination.readings import Readings, read_every_way
from vlmattn.hallucination.scenes import SceneCaptions, ScenePresence
from vlmattn.hallucination.synonyms import SynonymTable, coco_synonyms, open_synonyms, read_chair_synonyms
from vlmattn.hallucination.words import WORD_FAMILIES, NamedObjects, WordFamily, named_objects
from vlmattn.hallucination.yesno import YES_NO_PROTOCOLS, Confusion, YesNoProtocol, confusion

__all__ = [
    "CHAIR_PROMPTS",
    "POPE_PROMPTS",
    "WORD_FAMILIES",
    "YES_NO_PARSERS",
    "YES_NO_PROTOCOLS",
    "AmberDiscriminative",
    "AmberGenerative",
    "AmberImage",
    "AmberQuestion",
    "Benchmark",
    "CaptionScore",
    "Chair",
    "Confusion",
    "HallusionBench",
    "HallusionQuestion",
    "Item",
    "Mme",
    "MmeQuestion",
    "Mmhal",
    "MmhalQuestion",
    "NamedObjects",
    "ObjectHalBench",
    "Pope",
    "PopeQuestion",
    "Readings",
    "SceneCaptions",
    "ScenePresence",
    "Score",
    "SynonymTable",
    "WordFamily",
    "YesNoParser",
    "YesNoProtocol",
    "amber_nouns",
    "amber_score",
    "build_pope",
    "chair_metrics",
    "check_answers",
    "coco_synonyms",
    "coco_truth",
    "confusion",
    "exact_similarity",
    "load_amber",
    "load_amber_questions",
    "load_hallusionbench",
    "load_mme",
    "load_mmhal",
    "load_pope",
    "load_truth",
    "mmhal_rating",
    "named_objects",
    "open_synonyms",
    "parse_yes_no",
    "pope_statistics",
    "questions_of",
    "read_answers",
    "read_chair_synonyms",
    "read_every_way",
    "read_mme_answers",
    "relabel",
    "save_truth",
    "score_caption",
    "spacy_similarity",
    "write_answers",
]
