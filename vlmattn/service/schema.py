"""What requests and answers look like; the OpenAPI document is made of these."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from vlmattn.core.provenance import METHODS
from vlmattn.maps import NORMALISATIONS, PRESETS
from vlmattn.refine import RECIPES
from vlmattn.service.options import ServiceOptions

Box = Annotated[list[int], Field(min_length=4, max_length=4)]
Point = Annotated[list[float], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Phrase = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
Number = Annotated[int, Field(ge=-9999, le=9999)]
_MOST_TEXT = 8000


class Told(BaseModel):
    """What is sent: every field is always there."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


class Asked(BaseModel):
    """What is asked about a picture, and how the answer is to be read."""

    model_config = ConfigDict(extra="forbid")

    question: Annotated[str, Field(min_length=1, max_length=_MOST_TEXT, pattern=r"\S")] = Field(
        description="The question.", examples=["What is on the table?"]
    )
    answer: Annotated[str, Field(min_length=1, max_length=_MOST_TEXT, pattern=r"\S")] | None = Field(
        None, description="A given answer: nothing is generated, its words are told.", examples=["a red cup"]
    )
    check: bool = Field(False, description="Mark things that nothing in the picture supports. Further passes run.")
    risk: bool = Field(
        False,
        description="For every word of the answer, the chance that it is made up: by the service's detector, else by "
        "the deletion test, six more pictures a word.",
    )
    overlay: Literal["none", "png", "webp"] = Field(
        "none", description="Send the map drawn on the picture, in the upright picture's own size."
    )
    overlay_of: Phrase | None = Field(
        None, description="Whose map is drawn: a word or phrase of answer or question; default: the whole answer."
    )
    figure: bool = Field(False, description="Draw with title, colour bar and small print round it.")
    heads: Annotated[str, Field(min_length=1, max_length=100)] | Annotated[list[Number], Field(min_length=1)] | None = (
        Field(None, description="Heads of the maps: a preset of the model or a paper, or numbers; default: all.")
    )


class Word(Told):
    """Where the model looked for one word or phrase."""

    text: str = Field(description="As it stands in answer or question.", examples=["cup"])
    part: Literal["answer", "question"] = Field(description="Where it stands.")
    occurrence: int = Field(description="Which of equal ones, from 1.")
    of: int = Field(description="Of how many equal ones.")
    box_xyxy: Box | None = Field(
        description="The largest region above the 90 % quantile of its map: x0, y0, x1, y1 in pixels of the upright "
        "picture, ends exclusive; null where the map is flat or there is none."
    )
    peak_xy: Point | None = Field(description="The highest point of its map, in pixels; null where there is none.")
    image_share: Share | None = Field(
        description="Raw attention on the picture, mean over the chosen layers and heads; null where not known."
    )
    log_probability: float | None = Field(
        description="Of its tokens together, natural log; null for words of the question and where not known."
    )
    risk: Share | None = Field(description="Chance that it is made up, as `calibration` says; null if not asked for.")
    verdict: Literal["supported", "unclear", "unsupported"] | None = Field(
        description="Of the deletion test; null if a detector or nothing was asked, or nothing could be tested."
    )
    unsupported: bool | None = Field(description="Whether the risk is 0.5 or more; null where there is none.")
    note: str | None = Field(description="Why there is no map.")


class CheckedThing(Told):
    """A thing or word of a checked answer."""

    text: str
    risk: Share | None
    unsupported: bool


class CheckTold(Told):
    """What `check` found."""

    marked: str = Field(description="The answer with unsupported words in brackets.", examples=["A cup and [a fork?]"])
    of: Literal["objects", "words"] = Field(description="What was checked: things that the answer names, else words.")
    words: list[CheckedThing]
    calibration: str = Field(description="What risks go by, and what that was fitted on.")


class Picture(Told):
    """The picture as the model got it."""

    width: int = Field(description="Of the upright picture, in pixels.", ge=1)
    height: int = Field(description="Of the upright picture, in pixels.", ge=1)
    notes: list[str] = Field(description="What was done to it.", examples=[["EXIF orientation 6 applied"]])


class OverlayTold(Told):
    """The map drawn on the picture."""

    of: str = Field(description="Whose map it is.")
    media_type: Literal["image/png", "image/webp"]
    width: int
    height: int
    base64: str = Field(description="The file, with its provenance inside.")


class Second(Told):
    """A second look at the place where the model looked."""

    recipe: str
    box_xyxy: Box = Field(description="What was shown the second time, in pixels of the upright picture.")
    box_share: Share = Field(description="Its share of the picture.")
    answer: str = Field(description="The answer to the second look.")
    certainty: Share | None = Field(description="Geometric mean of the second answer's token probabilities.")
    first_certainty: Share | None = Field(description="The same of the first answer.")


class Timing(Told):
    """Where the time went, in seconds."""

    waited: float = Field(ge=0)
    ran: float = Field(ge=0)
    together: int = Field(ge=1, description="How many requests ran in one batch.")


class Answer(Told):
    """The answer, and where the model looked."""

    question: str
    answer: str
    words: list[Word] = Field(description="Those asked for, else those of the answer.")
    words_left_out: int = Field(ge=0, description="Words of the answer beyond the service's limit.")
    calibration: str | None = Field(
        description="What `risk` goes by, and where that was fitted; null if not asked for."
    )
    warning: str | None = Field(description="Said where nothing in the picture supports the answer, or parts of it.")
    checked: CheckTold | None
    overlay: OverlayTold | None
    refined: Second | None
    picture: Picture
    read: dict[str, Any] = Field(description="Method, layers, heads and normalisation of the maps.")
    provenance: dict[str, Any] = Field(description="Model, versions, prompt and rules: enough to make it again.")
    seconds: Timing


class FieldError(Told):
    """What is wrong with one field."""

    field: str
    message: str


class Error(Told):
    """Every error of the service."""

    error: str = Field(description="A word for programs.", examples=["picture_unusable"])
    message: str = Field(description="One line: what was expected, what came, what to do.")
    fields: list[FieldError] = Field(description="Which fields are wrong, where it is fields.")


class Health(Told):
    """Whether the service is there."""

    status: Literal["alive", "ready", "loading", "failed", "shutting_down"]


class ModelTold(Told):
    """The model, what can be asked of it, and the service's limits."""

    model: dict[str, Any] = Field(description="Family, layers, heads, kernel and numeric type.")
    detector: str | None = Field(description="What `risk` goes by; null for the deletion test.")
    methods: list[str]
    normalisations: list[str]
    layer_presets: list[str]
    head_presets: list[str] = Field(description="Found for this model first, then published ones.")
    recipes: list[str] = Field(description="Of `refine`.")
    limits: dict[str, float]


@cache
def asked_model(options: ServiceOptions) -> type[Asked]:
    """What a request says beside its picture, within the limits of a service."""
    most = options.max_new_tokens
    return create_model(
        "Asked",
        __base__=Asked,
        __doc__=Asked.__doc__,
        words=(
            Annotated[list[Phrase], Field(max_length=options.max_words)],
            Field([], description="Words or phrases of answer or question; default: every word of the answer."),
        ),
        max_new_tokens=(
            Annotated[int, Field(ge=1, le=most)],
            Field(min(64, most), description="How much the model may write."),
        ),
        method=(_one_of(METHODS), Field("raw", description="Of the maps; `raw` needs no further pass.")),
        normalise=(_one_of(NORMALISATIONS), Field("none", description="Of the maps.")),
        layers=(
            _one_of(PRESETS) | Annotated[list[Number], Field(min_length=1)] | None,
            Field(
                None, description="Layers of the maps: a preset, or numbers, negative ones from the last; default: all."
            ),
        ),
        refine=(
            _one_of(RECIPES) | None,
            Field(None, description="Look once more where it looked, by this recipe, and tell that answer too."),
        ),
    )


@cache
def json_model(options: ServiceOptions) -> type[Asked]:
    """The body of a JSON request."""
    return create_model(
        "AskJson",
        __base__=asked_model(options),
        image=(
            Annotated[str, Field(min_length=4)],
            Field(
                description="The picture's file in base64: PNG, JPEG, WebP, GIF, BMP or TIFF. No address, no path.",
                json_schema_extra={"format": "picture-in-base64", "contentEncoding": "base64"},
            ),
        ),
    )


def _one_of(names: Any) -> Any:
    return Literal[tuple(names)]
