"""``vlmattn demo``: the main job, end to end, on the model in the box."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmattn.cli.options import Json, Quiet, load_model, print_json

if TYPE_CHECKING:
    from vlmattn.api import Run, Vlm

SCENE_INDEX = 3
BRIGHTEST = 10.0
"""Upper end of the sheet's scale, in multiples of an even look."""

PHOTO_QUESTION = "Is there a red circle in the picture?"


@dataclass(frozen=True)
class Asked:
    """One question of the demo, and what came of it."""

    picture: str
    run: Run
    word: str | None
    truth: str
    file: Path


def demo(
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write; made if it is not there.")] = "vlmattn-demo",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask the model in the box three questions about a drawn scene and a photograph, and draw where it looked."""
    import time

    from vlmattn.core.files import check_can_hold, filled_folder

    started = time.perf_counter()
    check_can_hold(out)
    vlm = load_model("scene", None, None)
    asked = [_one(vlm, Path(out), number, *case) for number, case in enumerate(_cases(), 1)]
    drawn = [one.run.map(one.word).overlay() for one in asked]
    with filled_folder(out) as place:
        for one, overlay in zip(asked, drawn, strict=True):
            overlay.save(place(one.file.name))
        sheet = _sheet(asked).save(place("sheet.png"))
    seconds = time.perf_counter() - started
    if json:
        print_json({"asked": [_record(a) for a in asked], "sheet": str(sheet), "seconds": round(seconds, 1)})
    elif not quiet:
        _tell(vlm, asked, sheet, seconds)


def _cases() -> list[tuple[str, Any, str, str | None, str]]:
    # Name, picture, question, word to draw, true answer.
    from vlmattn.core.images import load_image
    from vlmattn.scene import split_item
    from vlmattn.scene.phrasings import TRAIN, with_article

    scene, _ = split_item("test", 0, SCENE_INDEX)
    shapes = [o.shape for o in scene.objects]
    target = next(o for o in scene.objects if shapes.count(o.shape) == 1)
    there = {o.name for o in scene.objects}
    crossed = [f"{a.color} {b.shape}" for a in scene.objects for b in scene.objects]
    absent = next(name for name in crossed if name not in there)
    photo = load_image(Path(__file__).parent / "photo" / "coffee.jpg")
    return [
        ("scene", scene.image, TRAIN["color"][0].format(o=target.shape), None, target.color),
        ("scene", scene.image, TRAIN["exist"][0].format(o=with_article(absent)), None, "no"),
        ("coffee.jpg", photo, PHOTO_QUESTION, None, "a red cup on a red saucer: not what it was trained on"),
    ]


def _one(
    vlm: Vlm, out: Path, number: int, name: str, picture: Any, question: str, word: str | None, truth: str
) -> Asked:
    run = vlm.ask(picture, question)
    file = out / f"{number}-{name.partition('.')[0]}.png"
    return Asked(name, run, word, truth, file)


def _sheet(asked: list[Asked]) -> Any:
    from vlmattn.overlay import contact_sheet

    rows = []
    for one in asked:
        looks = [one.run.map(one.word, layers=[layer], normalise="uniform") for layer in one.run.trace.layers]
        rows.append([(look.label, look.picture.image, look.pixels) for look in looks])
    return contact_sheet(
        rows,
        row_titles=[f"{a.run.question} {a.run.answer}" for a in asked],
        column_titles=[f"layer {layer}" for layer in asked[0].run.trace.layers],
        scale=(0.0, BRIGHTEST),
        title=f"Where the answer looked, layer by layer. 1 is an even look; {BRIGHTEST:.0f} and more is the lightest.",
    )


def _record(asked: Asked) -> dict[str, Any]:
    return {"picture": asked.picture, "truth": asked.truth, "file": str(asked.file)} | asked.run.to_dict()


def _tell(vlm: Vlm, asked: list[Asked], sheet: Path, seconds: float) -> None:
    typer.echo(f"model: {vlm.name} ({vlm.family}), small, in the box, trained on drawn scenes only\n")
    for one in asked:
        share = max((g.image_share for g in one.run.grounding()), default=0.0)
        typer.echo(f"{one.picture}: {one.run.question}")
        typer.echo(f"  answer: {one.run.answer}   (truth: {one.truth})")
        typer.echo(f"  {share:.0%} of the answer's attention was on the picture; drawn in {one.file}\n")
    typer.echo(f"words and layers side by side: {sheet}")
    typer.echo(f"{seconds:.1f} s. Next: vlmattn ask YOUR.jpg 'your question' --out looks")
