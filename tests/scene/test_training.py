"""Training goes on where it stopped, and its checkpoints become model folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vlmattn.core.errors import FileError
from vlmattn.core.files import write_json
from vlmattn.scene import Scene, checkpoints, make_scene, train
from vlmattn.scene.answering import answerer
from vlmattn.scene.evaluation import KindScore
from vlmattn.scene.export import export
from vlmattn.scene.samples import _part, load_samples, objects_on_patches
from vlmattn.scene.train import Recipe, Trainer, learning_rate

RECIPE = Recipe(question_batch=2, questions=3, vision_batch=4)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "samples"
    folder.mkdir()
    pixels, on_patch, scenes = _part((100, 16))
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "on_patch.npy", on_patch)
    write_json(folder / "samples.json", scenes)
    return folder


def run_folder(material: Path, folder: Path) -> Path:
    shutil.copytree(material, folder / "samples")
    return folder


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Linear(4, 3)
    return module, torch.optim.AdamW(module.parameters(), lr=0.1)


def steps(module: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        module(x).square().sum().backward()
        optimizer.step()


def test_a_run_in_two_parts_ends_like_one_in_one(tmp_path: Path) -> None:
    whole, optimizer = network()
    steps(whole, optimizer, 0, 8)
    first, optimizer = network()
    steps(first, optimizer, 0, 3)
    checkpoints.save(tmp_path / "c", {"m": first}, optimizer, {"step": 3, "seconds": 1.5})
    second, optimizer = network()
    assert checkpoints.load(tmp_path / "c", {"m": second}, optimizer) == {"step": 3, "seconds": 1.5}
    steps(second, optimizer, 3, 8)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_no_checkpoint_is_no_counters(tmp_path: Path) -> None:
    module, optimizer = network()
    assert checkpoints.load(tmp_path / "none", {"m": module}, optimizer) == {}


@pytest.mark.parametrize("moment", ["before the swap", "between the renames"])
def test_a_killed_save_leaves_the_checkpoint_before_it(tmp_path: Path, moment: str) -> None:
    module, optimizer = network()
    steps(module, optimizer, 0, 2)
    checkpoints.save(tmp_path / "c", {"m": module}, optimizer, {"step": 2})
    if moment == "before the swap":
        (tmp_path / ".c.new").mkdir()
        (tmp_path / ".c.new" / "weights.safetensors").write_bytes(b"half")
    else:
        (tmp_path / "c").rename(tmp_path / ".c.old")
    again, optimizer = network()
    assert checkpoints.load(tmp_path / "c", {"m": again}, optimizer) == {"step": 2}
    assert torch.equal(again.weight, module.weight)
    checkpoints.save(tmp_path / "c", {"m": again}, optimizer, {"step": 3})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    module, optimizer = network()
    checkpoints.save(tmp_path / "c", {"m": module}, optimizer, {"step": 0})
    other = nn.Linear(4, 3, bias=False)
    with pytest.raises(RuntimeError, match="does not fit"):
        checkpoints.load(tmp_path / "c", {"m": other}, torch.optim.AdamW(other.parameters()))


@pytest.mark.parametrize("stage", ["vision", "questions"])
def test_the_rate_rises_stays_and_falls(stage: str) -> None:
    recipe = Recipe()
    top = recipe.vision_rate if stage == "vision" else recipe.question_rate
    assert learning_rate(recipe, stage, 0.0, 0) < top / 50
    assert learning_rate(recipe, stage, 0.3, 1000) == top
    falling = [learning_rate(recipe, stage, done, 1000) for done in (0.5, 0.7, 0.9, 1.0)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(0.02 * top)


SCENES = [make_scene(seed) for seed in range(40)]


@pytest.mark.parametrize(
    "scene",
    [
        next(s for s in SCENES if s.image_wh == (224, 224)),
        next(s for s in SCENES if s.image_wh[0] < 200),
        next(s for s in SCENES if s.image_wh[1] < 200),
    ],
    ids=["square", "upright", "flat"],
)
def test_patch_labels_lie_on_their_objects(scene: Scene) -> None:
    width, height = scene.image_wh
    side = max(width, height)
    labels = objects_on_patches(scene, (side - width) // 2, (side - height) // 2, side).reshape(8, 8)
    assert set(labels.ravel()) == set(range(len(scene.objects) + 1))
    for number, item in enumerate(scene.objects, 1):
        rows, cols = np.nonzero(labels == number)
        x0, y0, x1, y1 = item.box_xyxy
        step = side / 8
        assert (cols * step < x1 + (side - width) / 2).all()
        assert ((cols + 1) * step > x0 + (side - width) / 2).all()
        assert (rows * step < y1 + (side - height) / 2).all()
        assert ((rows + 1) * step > y0 + (side - height) / 2).all()


def test_samples_are_the_scenes_of_their_seed(material: Path) -> None:
    samples = load_samples(material)
    rng = np.random.default_rng(100)
    for found in samples.scenes:
        assert found.objects == make_scene(rng).objects


def test_both_stages_lower_their_loss(material: Path, tmp_path: Path) -> None:
    trainer = Trainer(run_folder(material, tmp_path), RECIPE, 0, 1)
    weights = [*trainer.model.parameters(), *trainer.heads.parameters()]
    for loss_of in (trainer._vision_loss, trainer._question_loss):
        optimizer = torch.optim.AdamW(weights, lr=1e-3)
        losses = []
        for _ in range(12):
            loss = loss_of(np.random.default_rng(0), 0.5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.8 * losses[0]


def test_a_run_is_logged_resumed_and_exported(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(material, tmp_path)
    ticks = iter(range(10_000))
    monkeypatch.setattr(Trainer, "_clock", lambda self: float(next(ticks)))
    monkeypatch.setattr(train, "evaluate", lambda answer, **given: [KindScore("color", 1, 0.5, 0.2, 0.3, {})])
    # The clock is read once per five steps, and each reading is one second later.
    short = Recipe(vision_minutes=1 / 60, question_minutes=2 / 60, question_batch=1, questions=2, vision_batch=2)
    Trainer(folder, short, 0, 1).run()
    counters = json.loads((folder / "questions" / "counters.json").read_text(encoding="utf-8"))
    assert counters == {"step": 10, "seconds": 2.0}
    more = Recipe(**{**vars(short), "question_minutes": 4 / 60, "score_every": 1 / 60})
    Trainer(folder, more, 0, 1).run()
    counters = json.loads((folder / "questions" / "counters.json").read_text(encoding="utf-8"))
    assert counters == {"step": 20, "seconds": 4.0}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["stage"], line["step"], line["color"]) for line in lines] == [("validation", 20, 0.5)]
    model = export(folder / "questions", folder / "model")
    assert json.loads((model / "training.json").read_text(encoding="utf-8")) == {"steps": 20, "minutes": 0.1}
    assert len(answerer(model, max_new_tokens=2)([make_scene(0).image], ["How many objects are there?"])) == 1


def test_an_export_replaces_weights_and_keeps_the_card(tmp_path: Path, untrained: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("card")
    (folder / "stale.bin").write_bytes(b"old")
    export(untrained, folder)
    assert (folder / "README.md").read_text() == "card"
    assert not (folder / "stale.bin").exists()
    assert all(p.stat().st_mode & 0o444 == 0o444 for p in folder.iterdir())
    assert sum(p.stat().st_size for p in folder.iterdir()) < 12 << 20
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".model")] == []


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = train.make_model(train.make_tokenizer())
    folder = tmp_path_factory.mktemp("untrained") / "c"
    checkpoints.save(folder, {"model": model}, torch.optim.AdamW(model.parameters()), {"step": 0, "seconds": 0.0})
    return folder


def spoiled(checkpoint: Path, folder: Path, how: str) -> Path:
    from safetensors.torch import load_file, save_file

    held: dict[str, Any] = load_file(checkpoint / "weights.safetensors")
    first = next(iter(held))
    if how == "a weight less":
        held.pop(first)
    else:
        held[first] = torch.zeros(3)
    folder.mkdir()
    save_file(held, folder / "weights.safetensors")
    return folder


@pytest.mark.parametrize("how", ["a weight less", "another form"])
def test_a_spoiled_checkpoint_is_not_exported(tmp_path: Path, untrained: Path, how: str) -> None:
    folder = tmp_path / "model"
    with pytest.raises(FileError, match="another model"):
        export(spoiled(untrained, tmp_path / "bad", how), folder)
    with pytest.raises(FileError, match=r"weights\.safetensors is missing"):
        export(tmp_path / "none", folder)
    assert not folder.exists()
