"""The same table on a cluster of two, one of which is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.pipelines.asked import done, job, whole, write_table
from vlmattn.core.errors import SpecError
from vlmattn.pipelines import Cluster, Output, open_table, overlay_table_on_cluster
from vlmattn.pipelines.rows import Row, rows_from, rows_to


def test_what_a_cluster_cannot_be_is_refused() -> None:
    with pytest.raises(SpecError, match="at least 1 replica"):
        Cluster(replicas=0)
    with pytest.raises(SpecError, match="0 or more"):
        Cluster(gpus=-1)


def replicas_of(parent: int) -> list[int]:
    """Processes below this one in which a replica of the model runs."""
    below, found = {parent}, []
    for name in sorted(int(n) for n in os.listdir("/proc") if n.isdigit()):
        try:
            above = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            command = Path(f"/proc/{name}/cmdline").read_text()
        except OSError:
            continue
        if above in below:
            below.add(name)
            if command.startswith("ray::") and "OverlayActor" in command:
                found.append(name)
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's, of many kinds
def test_two_replicas_of_which_one_is_killed_make_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'vlmattn[ray]'")
    pytest.importorskip("ray.data")
    monkeypatch.undo()  # Ray's processes talk over sockets of this machine
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("OMP_NUM_THREADS", "1")):
        monkeypatch.setenv(name, value)
    table, killed = write_table(tmp_path / "in", 40), []

    def tick(finished: int, total: int) -> None:
        if finished and not killed:
            killed.extend(replicas_of(os.getpid())[:1])
            for process in killed:
                os.kill(process, signal.SIGKILL)

    ray.init(num_cpus=2, object_store_memory=2**27, include_dashboard=False, log_to_driver=False)
    try:
        made = overlay_table_on_cluster(
            open_table(str(table)), Output(tmp_path / "two"), job(), Cluster(replicas=2), progress=tick
        )
    finally:
        ray.shutdown()
    assert killed
    assert made.made == made.rows == 40
    done(table, tmp_path / "one")
    assert whole(tmp_path / "two") == whole(tmp_path / "one")


def test_rows_go_to_replicas_as_text_and_come_back_as_they_were() -> None:
    rows = (
        Row(0, "a", "x.png", "Häh?", ("one", "two words"), system="s", name="x.png"),
        Row(1, "1", b"\x00\xff|", "Q", answer="", fault="it's broken"),
        Row(2, "2"),
    )
    assert rows_from(rows_to(rows)) == rows
    assert rows_from(rows_to(())) == ()
