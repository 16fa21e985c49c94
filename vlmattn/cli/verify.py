"""``vlmattn verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmattn.cli.choices import check_question
from vlmattn.cli.options import Device, Dtype, Json, Kernel, Quiet, Revision, load_model, print_json

if TYPE_CHECKING:
    from vlmattn.adapters import ContractReport
    from vlmattn.api import Verification, Vlm
    from vlmattn.core.errors import VerificationFailed

Named = Annotated[str | None, typer.Argument(help="'scene' (the default), a hub name, or a folder.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="The same, as other commands take it.")]


def verify(
    name: Named = None,
    model: Model = None,
    image: Annotated[str | None, typer.Option(help="A picture; default: one made for the purpose.")] = None,
    question: Annotated[str, typer.Option(help="What to ask.")] = "What is in the picture?",
    tolerance: Annotated[float, typer.Option(min=0, help="Largest allowed difference of any logit.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="How much to generate.")] = 8,
    contract: Annotated[bool, typer.Option(help="Also prove where its image tokens lie, by painting.")] = True,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Prove on a model that its image tokens lie where maps show them, and that capture changes neither tokens nor
    logits; exit code 1 if one of the two fails."""
    from vlmattn.core.errors import SpecError, VerificationFailed
    from vlmattn.core.images import load_image

    check_question(question, 1, None)
    if name is not None and model is not None:
        raise SpecError(f"two models are named, {name} and {model}: leave out --model")
    picture = load_image(image) if image is not None else None
    vlm = load_model(name or model or "scene", device, dtype, revision, attention)
    report = _contract(vlm) if contract else None
    failed: VerificationFailed | None = None
    result: Verification | None = None
    try:
        result = vlm.verify(picture, question, tolerance=tolerance, max_new_tokens=max_new_tokens)
    except VerificationFailed as error:
        failed = error
    if json:
        print_json(_record(vlm, report, result, failed))
    elif not quiet:
        typer.echo("\n".join(str(part) for part in (repr(vlm), report, result) if part is not None))
    if failed is not None:
        raise failed
    if report is not None and not report.ok:
        raise VerificationFailed(str(report) if quiet or json else f"{report.adapter} breaks the contract; see above")


def _contract(vlm: Vlm) -> ContractReport:
    from vlmattn.adapters import check_adapter

    return check_adapter(vlm.model, vlm.processor, raises=False)


def _record(
    vlm: Vlm, report: ContractReport | None, result: Verification | None, failed: VerificationFailed | None
) -> dict[str, Any]:
    """Everything as plain values; ``passed`` holds for both."""
    record = result.to_dict() if result is not None else {"error": str(failed)}
    passed = failed is None and (report is None or report.ok)
    told = None if report is None else report.to_dict()
    return record | {"passed": passed, "contract": told, "model": vlm.describe()}
