"""Data set runs: answers by any number of processes, resumable, with a manifest."""

from __future__ import annotations

from vlmattn.evaluate.compare import (
    Comparison,
    Difference,
    clusters_of,
    compare,
    intervals,
    load_score,
    save_score,
)
from vlmattn.evaluate.detecting import DetectionPlan, measure_detection
from vlmattn.evaluate.detection_rows import DetectionReport
from vlmattn.evaluate.detection_table import detection_markdown
from vlmattn.evaluate.journal import Journal
from vlmattn.evaluate.layouts import RUN_LAYOUTS, check_layouts, write_run
from vlmattn.evaluate.manifest import Manifest, environment, manifest_of, prompts_hash
from vlmattn.evaluate.plan import batches, seed_of
from vlmattn.evaluate.ranking import (
    CONTROLS,
    auroc_difference,
    average_precision,
    controlled_auroc,
    position_strata,
    precision_interval,
)
from vlmattn.evaluate.runner import Decoding, Finished, evaluate, processes
from vlmattn.evaluate.statistics import (
    Interval,
    McNemar,
    auroc,
    benjamini_hochberg,
    bootstrap,
    holm,
    mcnemar,
    paired_bootstrap,
    permutation_test,
    ratio,
    standard_error,
    wilson,
)
from vlmattn.evaluate.store import Answer, Store, locked, read_results

__all__ = [
    "CONTROLS",
    "RUN_LAYOUTS",
    "Answer",
    "Comparison",
    "Decoding",
    "DetectionPlan",
    "DetectionReport",
    "Difference",
    "Finished",
    "Interval",
    "Journal",
    "Manifest",
    "McNemar",
    "Store",
    "auroc",
    "auroc_difference",
    "average_precision",
    "batches",
    "benjamini_hochberg",
    "bootstrap",
    "check_layouts",
    "clusters_of",
    "compare",
    "controlled_auroc",
    "detection_markdown",
    "environment",
    "evaluate",
    "holm",
    "intervals",
    "load_score",
    "locked",
    "manifest_of",
    "mcnemar",
    "measure_detection",
    "paired_bootstrap",
    "permutation_test",
    "position_strata",
    "precision_interval",
    "processes",
    "prompts_hash",
    "ratio",
    "read_results",
    "save_score",
    "seed_of",
    "standard_error",
    "wilson",
    "write_run",
]
