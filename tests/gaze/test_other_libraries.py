"""Objects of pymovements and pysaliency themselves, where these are installed."""

from __future__ import annotations

import numpy as np
import pytest

from vlmattn import gaze as vg

WH = (640, 480)


def samples() -> vg.Samples:
    """A thousand samples a second: rests of 120 ms, with jumps between them."""
    rng = np.random.default_rng(0)
    xy = np.repeat(rng.uniform(50, 430, (8, 2)), 120, axis=0) + rng.normal(0, 0.3, (960, 2))
    return vg.Samples(np.arange(960) / 1000, xy[:, 0], xy[:, 1])


def test_fixations_by_velocity_are_those_of_pymovements() -> None:
    pm = pytest.importorskip("pymovements")
    held = samples()
    step = np.stack([np.diff(held.x), np.diff(held.y)], axis=1) * 1000
    velocity = np.concatenate([step[:1], step])  # of each sample from the one before it; the first has the next one's
    events = pm.events.ivt(
        velocities=velocity, timesteps=np.arange(960), velocity_threshold=2000.0, minimum_duration=20
    ).frame
    theirs = [(a, b) for name, a, b in events.select("name", "onset", "offset").rows() if name == "fixation"]
    assert theirs == [(run.start, run.stop - 1) for run in vg.ivt(held, velocity=2000.0, min_duration=0.02)]
    assert len(theirs) >= 8


def test_events_of_pymovements_become_scanpaths() -> None:
    pm, pl = pytest.importorskip("pymovements"), pytest.importorskip("polars")
    held = samples()
    frame = pl.DataFrame({"time": np.arange(960), "x": held.x, "y": held.y})
    screen = {"screen_width_px": 640, "screen_height_px": 480, "screen_width_cm": 32, "screen_height_cm": 24}
    experiment = pm.Experiment(**screen, distance_cm=57, origin="upper left", sampling_rate=1000)
    recording = pm.Gaze(
        samples=frame, experiment=experiment, pixel_columns=["x", "y"], time_column="time", time_unit="ms"
    )
    recording.pix2deg()
    recording.pos2vel(method="preceding")
    recording.detect("ivt", velocity_threshold=200.0, minimum_duration=50)
    recording.compute_event_properties(("location", {"position_column": "pixel"}))
    path = vg.from_pymovements(recording, WH, image="a.jpg", subject="s")[0]
    rows = recording.events.frame
    assert path.start.tolist() == pytest.approx([v / 1000 for v in rows["onset"].to_list()])
    assert path.xy.tolist() == rows["location"].to_list()
    assert len(path) >= 8


def test_trains_of_pysaliency_become_scanpaths() -> None:
    pysaliency = pytest.importorskip("pysaliency")
    stimuli = pysaliency.Stimuli([np.zeros((30, 40, 3), np.uint8), np.zeros((20, 50, 3), np.uint8)])
    xs, ys, ts = [[1.0, 2.5, 3.0], [4.0, 45.0]], [[1.0, 2.0, 29.0], [4.0, 5.0]], [[0.1, 0.2, 0.4], [0.0, 0.5]]
    trains = pysaliency.FixationTrains.from_fixation_trains(xs, ys, ts, [0, 1], [0, 3])
    for given in (trains, trains[np.arange(5)]):
        got = vg.from_pysaliency(given, stimuli)
        assert [path.x.tolist() for path in got] == xs
        assert [path.y.tolist() for path in got] == ys
        assert [path.start.tolist() for path in got] == ts
        assert [path.image_wh for path in got] == [(40, 30), (50, 20)]
        assert got.subjects == ("0", "3")
