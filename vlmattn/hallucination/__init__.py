"""Hallucination: benchmarks and their scorers."""

from __future__ import annotations

from vlmattn.hallucination.benchmark import Benchmark, Item, Score, check_answers
from vlmattn.hallucination.chair import CHAIR_PROMPTS, CaptionScore, Chair, chair_metrics, score_caption
from vlmattn.hallucination.chair_truth import coco_truth, load_truth, save_truth
from vlmattn.hallucination.parsers import YES_NO_PARSERS, YesNoParser, parse_yes_no
from vlmattn.hallucination.pope import POPE_PROMPTS, Pope, PopeQuestion, load_pope, questions_of, relabel
from vlmattn.hallucination.synonyms import SynonymTable, coco_synonyms, open_synonyms, read_chair_synonyms
from vlmattn.hallucination.words import WORD_FAMILIES, NamedObjects, WordFamily, named_objects
from vlmattn.hallucination.yesno import YES_NO_PROTOCOLS, Confusion, YesNoProtocol, confusion
