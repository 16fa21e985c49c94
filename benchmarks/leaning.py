"""What the dial of ``scene-prior`` does: ``python benchmarks/leaning.py --scenes 200``.

For each strength: how often the absent partner of an anchor is claimed (leaned pairs, control pairs) and any other
absent thing, in answers and in captions, and what became of plain questions.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from vlmattn.scene.answering import answers_of
from vlmattn.scene.box import load_from_the_box
from vlmattn.scene.leaning import measure_leaning

STRENGTHS = (0.0, 0.25, 0.4, 0.5, 0.6, 0.65, 0.75, 1.0)


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=200, help="of each group")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    print("| strength | yes, leaned | yes, controls | yes, random | captions, leaned | captions, controls | plain |")
    print("|---|---|---|---|---|---|---|")
    for strength in STRENGTHS:
        score = measure_leaning(answers_of(*load_from_the_box(f"scene-prior@{strength}")), scenes=given.scenes)
        rows.append({"strength": strength} | asdict(score))
        plain = ", ".join(f"{kind} {value:.3f}" for kind, value in score.plain.items())
        shares = (score.yes_leaned, score.yes_controls, score.yes_random, score.said_leaned, score.said_controls)
        print(f"| {strength:g} | {' | '.join(f'{s:.3f}' for s in shares)} | {plain} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
