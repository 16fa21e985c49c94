"""What starting costs: ``import vlmattn`` (budget 0.2 s) and ``vlmattn --help`` (budget 0.5 s), in fresh processes.

``python benchmarks/imports.py``. Wall-clock seconds, median of several runs, with and without the start of Python.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

CASES = {
    "python": ([sys.executable, "-c", "pass"], None),
    "import vlmattn": ([sys.executable, "-c", "import vlmattn"], 0.2),
    "vlmattn --help": ([sys.executable, "-m", "vlmattn", "--help"], 0.5),
}


def seconds(command: list[str]) -> float:
    """Wall-clock time of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    medians = {name: statistics.median(seconds(command) for _ in range(runs)) for name, (command, _) in CASES.items()}
    for name, (_, budget) in CASES.items():
        said = "" if budget is None else f"  budget {budget} s: {'met' if medians[name] < budget else 'MISSED'}"
        print(f"{name:16} {medians[name]:.3f} s  over python {medians[name] - medians['python']:.3f} s{said}")


if __name__ == "__main__":
    main()
