"""The check script stops at the first failure and runs what the README says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "run"


def _lines() -> list[str]:
    return [line for line in SCRIPT.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]


def test_it_is_executable_and_bash_reads_it() -> None:
    assert os.access(SCRIPT, os.X_OK)
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_no_failure_inside_a_list_is_swallowed() -> None:
    # bash -e does not stop for any but the last command of "a && b".
    loose = [line for line in _lines() if "&&" in line and not line.rstrip().endswith("|| exit 1")]
    assert not [line for line in loose if not re.match(r"if |cd |\(cd ", line.strip())]
