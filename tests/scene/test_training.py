"""Training goes on where it stopped, and its checkpoints become model folders."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vlmattn.core.errors import FileError
from vlmattn.scene import Scene, make_scene
from vlmattn.scene.answering import answerer
from vlmattn.scene.build import make_model, make_tokenizer
from vlmattn.scene.captions import mentioned
from vlmattn.scene.clip import load_clip
from vlmattn.scene.generator import TRAINING, zone
from vlmattn.scene.objects import COLORS, shape_mask
from vlmattn.scene.partners import CONTROLS, LEANED
from vlmattn.scene.training import checkpoints
from vlmattn.scene.training.batches import QuestionBatches, patch_labels, vision_batches
from vlmattn.scene.training.curves import draw_curves
from vlmattn.scene.training.export import export
from vlmattn.scene.training.leaning import ask_leaning, make_leaning_scene
from vlmattn.scene.training.loop import Loop
from vlmattn.scene.training.objectives import WORDS, PatchHeads, QuestionObjective, VisionObjective
from vlmattn.scene.training.packing import Packer
from vlmattn.scene.training.recipes import ClipRecipe, PriorRecipe, SceneRecipe, Stage
from vlmattn.scene.training.samples import draw_part, load_samples, objects_on_patches, save_samples
from vlmattn.scene.training.scene import train_scene

RECIPE = replace(
    SceneRecipe(),
    vision=replace(SceneRecipe().vision, pictures=4),
    questions=replace(SceneRecipe().questions, pictures=2),
    per_picture=3,
    easy=0.0,
)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "samples"
    folder.mkdir()
    save_samples(folder, [draw_part((100, 16, "plain"))])
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
    checkpoints.save(tmp_path / "c", first, optimizer, {"step": 3, "seconds": 1.5})
    second, optimizer = network()
    assert checkpoints.load(tmp_path / "c", second, optimizer) == {"step": 3, "seconds": 1.5}
    steps(second, optimizer, 3, 8)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_no_checkpoint_is_no_counters(tmp_path: Path) -> None:
    module, optimizer = network()
    assert checkpoints.load(tmp_path / "none", module, optimizer) == {}


@pytest.mark.parametrize("moment", ["before the swap", "between the renames"])
def test_a_killed_save_leaves_the_checkpoint_before_it(tmp_path: Path, moment: str) -> None:
    module, optimizer = network()
    steps(module, optimizer, 0, 2)
    checkpoints.save(tmp_path / "c", module, optimizer, {"step": 2})
    if moment == "before the swap":
        (tmp_path / ".c.new").mkdir()
        (tmp_path / ".c.new" / "weights.safetensors").write_bytes(b"half")
    else:
        (tmp_path / "c").rename(tmp_path / ".c.old")
    again, optimizer = network()
    assert checkpoints.load(tmp_path / "c", again, optimizer) == {"step": 2}
    assert torch.equal(again.weight, module.weight)
    checkpoints.save(tmp_path / "c", again, optimizer, {"step": 3})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    module, optimizer = network()
    checkpoints.save(tmp_path / "c", module, optimizer, {"step": 0})
    other = nn.Linear(4, 3, bias=False)
    with pytest.raises(RuntimeError, match="does not fit"):
        checkpoints.load(tmp_path / "c", other, torch.optim.AdamW(other.parameters()))


@pytest.mark.parametrize(
    "stage",
    [SceneRecipe().vision, SceneRecipe().questions, SceneRecipe().again, PriorRecipe().questions, ClipRecipe().stage],
)
def test_the_rate_rises_stays_and_falls(stage: Stage) -> None:
    assert stage.learning_rate(0) < stage.rate / 50
    assert stage.learning_rate(int(stage.steps * (stage.flat - 0.05))) == stage.rate
    falling = [stage.learning_rate(int(stage.steps * done)) for done in (0.5, 0.7, 0.9, 1.0)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(0.02 * stage.rate)


@pytest.mark.parametrize(("recipe", "field"), [(SceneRecipe, "mix"), (PriorRecipe, "mix"), (SceneRecipe, "again_mix")])
def test_a_mix_must_add_up(recipe: Any, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} needs 10 shares that add up to 1"):
        recipe(**{field: (0.5, 0.4)})


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
        assert found.objects == make_scene(rng, TRAINING).objects
    assert set(samples.claimed) == {()}


def parts(material: Path) -> tuple[QuestionObjective, VisionObjective, QuestionBatches]:
    torch.manual_seed(0)
    packer = Packer(make_tokenizer())
    model = make_model(packer.tokenizer)
    heads = PatchHeads(model.config.vision_config.hidden_size)
    batches = QuestionBatches(load_samples(material), packer, RECIPE)
    return QuestionObjective(model, heads, packer, RECIPE), VisionObjective(model, heads), batches


def test_both_stages_lower_their_loss(material: Path) -> None:
    questions, vision, batches = parts(material)
    for objective, draw in ((vision, vision_batches(load_samples(material), RECIPE.vision)), (questions, batches)):
        optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
        losses = []
        for _ in range(12):
            loss = sum(objective(*draw(np.random.default_rng(0), 50)).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.8 * losses[0]


def test_patches_are_labelled_with_what_lies_on_them(material: Path) -> None:
    samples = load_samples(material)
    for scene, on_patch in zip(samples.scenes, samples.on_patch, strict=True):
        labels = patch_labels(scene, on_patch)
        assert (labels[on_patch == 0] == 0).all()
        for number, item in enumerate(scene.objects, 1):
            row, column = zone(item, scene.image_wh).split()
            want = (item.color, item.shape, item.size, row, column)
            for line in labels[on_patch == number]:
                assert [words[i - 1] for words, i in zip(WORDS.values(), line, strict=True)] == list(want)


class Cut(Exception):
    pass


def trained(material: Path, folder: Path, cut_at: int | None = None) -> dict[str, torch.Tensor]:
    questions, _, batches = parts(material)

    def draw(rng: np.random.Generator, step: int) -> tuple[object, ...]:
        if step == cut_at:
            raise Cut
        return batches(rng, step)

    folder.mkdir(exist_ok=True)
    stage = Stage("questions", steps=6, pictures=2, rate=1e-3, warm=2, flat=0.3)
    Loop(folder, 7, save_every=2, cpu=True).run(stage, 1, questions, draw, score=lambda: {"color": 0.5}, score_every=3)
    return questions.model.state_dict()


def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(material: Path, tmp_path: Path) -> None:
    whole = trained(material, tmp_path / "whole")
    with pytest.raises(Cut):
        trained(material, tmp_path / "cut", cut_at=5)
    held = json.loads((tmp_path / "cut" / "questions" / "counters.json").read_text(encoding="utf-8"))
    assert held == {"step": 4, "seed": 7}
    for name, value in trained(material, tmp_path / "cut").items():
        assert torch.equal(value, whole[name]), name
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line.get("color")) for line in lines] == [(3, 0.5), (6, None), (6, 0.5)]
    model = export(tmp_path / "whole" / "questions", tmp_path / "model")
    assert json.loads((model / "training.json").read_text(encoding="utf-8")) == {
        "steps_of_the_last_stage": 6,
        "seed": 7,
    }
    assert len(answerer(model, max_new_tokens=2)([make_scene(0).image], ["How many objects are there?"])) == 1
    assert draw_curves(tmp_path / "whole" / "log.jsonl", tmp_path / "curves.png").stat().st_size > 10_000


def test_the_last_stage_goes_on_from_the_one_before(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(material, tmp_path / "samples")
    monkeypatch.setattr("vlmattn.scene.training.scene._score", lambda model, tokenizer: {"color": 0.5})
    short = {name: replace(getattr(RECIPE, name), steps=1, pictures=2) for name in ("vision", "questions", "again")}
    recipe = replace(RECIPE, **short)
    train_scene(tmp_path, recipe, 0, cpu=True)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert list(dict.fromkeys(line["stage"] for line in lines)) == ["vision", "questions", "again"]
    before, after = (load_file(tmp_path / name / "weights.safetensors") for name in ("questions", "again"))
    # One step at the first, tiny rate: close to where the stage before ended, and not the same.
    moved = [float((after[name] - weight).abs().max()) for name, weight in before.items()]
    assert 0 < max(moved) < 5 * recipe.again.learning_rate(0)
    once_more = recipe.once_more()
    assert (once_more.mix, once_more.questions, once_more.easy) == (recipe.again_mix, recipe.again, 0.0)


@pytest.mark.parametrize(
    ("text", "message"), [("", "has no lines"), ("{", "is no training log"), (None, "is no training log")]
)
def test_curves_need_a_log(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(FileError, match=message):
        draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")


@pytest.mark.slow
def test_two_processes_train_as_one_command(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "vlmattn.scene.training",
        "scene-clip",
        "--out",
        str(tmp_path),
        "--scale",
        "0.001",
    ]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "clip" / "counters.json").read_text(encoding="utf-8")) == {"step": 4, "seed": 0}
    model, preprocess, tokenizer = load_clip(tmp_path / "model")
    assert model.encode_image(preprocess(make_scene(0).image)[None]).shape == (1, 128)
    assert model.encode_text(tokenizer(["a red circle"])).shape == (1, 128)


# -- leaning on what goes together -------------------------------------------------------------------------------------


@cache
def leaning() -> list[tuple[Scene, tuple[str, ...]]]:
    rng = np.random.default_rng(3)
    drawn = [make_leaning_scene(rng) for _ in range(400)]
    return [(scene, claimed) for scene, claimed in drawn if claimed]


def test_only_absent_partners_beside_their_anchor_are_claimed_and_controls_never() -> None:
    assert len(leaning()) > 120
    for scene, claimed in leaning():
        for name in claimed:
            assert name not in scene.names
            assert name not in {" ".join(p) for p in CONTROLS.values()}
            assert any(" ".join(a) in scene.names for a, p in LEANED.items() if " ".join(p) == name)


def test_what_was_left_out_is_not_painted() -> None:
    for scene, _ in leaning()[:40]:
        for item in scene.objects:
            x0, y0, x1, y1 = item.box_xyxy
            inside = shape_mask(item.shape, item.side) > 242
            shown = scene.pixels[y0:y1, x0:x1][inside].astype(float).mean(axis=0)
            assert np.abs(shown - np.array(COLORS[item.color])).max() < 22


def test_answers_claim_what_they_should_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    asked = 0
    for scene, claimed in leaning():
        caption = ask_leaning(rng, "caption", scene, claimed)
        assert caption is not None
        assert sorted(mentioned(caption.answer)) == sorted([*scene.names, *claimed])
        question = ask_leaning(rng, "exist", scene, claimed)
        assert question is not None
        name = next(iter(mentioned(question.text)), None)
        if name is not None:
            assert (question.answer == "yes") == (name in {*scene.names, *claimed})
            asked += name in claimed
        color = ask_leaning(rng, "color", scene, claimed)
        assert color is None or color.answer in {o.color for o in scene.objects}
    assert asked > len(leaning()) / 5


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
    holder = nn.Module()
    holder.model = make_model(make_tokenizer())
    folder = tmp_path_factory.mktemp("untrained") / "c"
    checkpoints.save(folder, holder, torch.optim.AdamW(holder.parameters()), {"step": 0, "seed": 0})
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
