"""The pages of the site: examples run, every method and error has its section, tables are what the code says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
DOCS = REPO / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
OWN = ("adapters.md", "errors.md", "refinement.md", "steering.md")
RUN_HERE = sorted(page for page in PAGES if page.startswith("tasks/") or page in OWN)
BLOCK = re.compile(
    r"^(?P<mark><!-- not run: \S.*? -->\n)?```python\n(?P<code>.*?)^```$", flags=re.DOTALL | re.MULTILINE
)
PARTS = ("$$", "**Source**: ", "**Knobs**: ", "**Cost**: ", "**When it misleads**: ")


@pytest.fixture(scope="module")
def hooks() -> Any:
    sys.path.insert(0, str(DOCS))
    try:
        import build_hooks
    finally:
        sys.path.remove(str(DOCS))
    return build_hooks


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    """Body by heading, of sections that have a body."""
    parts = re.split(r"^##+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {title: body for title, body in zip(parts[1::2], parts[2::2], strict=True) if body.strip()}


@pytest.mark.parametrize("page", [page for page in RUN_HERE if BLOCK.search(text_of(page))])
def test_the_examples_run_in_order(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmattn.adapters import registry

    monkeypatch.chdir(tmp_path)
    registry.families()  # registered before they are copied: what a page adds goes, and they stay
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    text, names = text_of(page), {"__name__": "page"}
    for match in BLOCK.finditer(text):
        if not match["mark"]:
            # Padded, so that a traceback names the page's own line.
            line = text.count("\n", 0, match.start("code"))
            exec(compile("\n" * line + match["code"], page, "exec"), names)


def test_every_other_example_is_run_elsewhere_or_says_why_not() -> None:
    tests = {path: path.read_text(encoding="utf-8") for path in (REPO / "tests").rglob("test_*.py")}
    running = [text for path, text in tests.items() if "exec(" in text and path != Path(__file__)]
    for page in sorted(set(PAGES) - set(RUN_HERE)):
        bare = [match for match in BLOCK.finditer(text_of(page)) if not match["mark"]]
        assert not bare or any(page in text for text in running), f"nothing runs the examples of docs/{page}"


METHOD_PAGES = [page for page in PAGES if page.startswith("methods/") and page != "methods/index.md"]


@pytest.mark.parametrize("page", METHOD_PAGES)
def test_every_method_says_all_of_it(page: str) -> None:
    for title, body in sections(page).items():
        missing = [part for part in PARTS if part not in body]
        assert not missing, f"{page}, {title}: no {missing}"


def registries() -> dict[str, list[str]]:
    from vlmattn import detection, gaze, heads, maps, refine, steering
    from vlmattn.api import checks
    from vlmattn.api.faithfulness import METRICS
    from vlmattn.gaze import scanpaths

    states = [name for name in checks.METHODS if name in ("tam", "logit_lens", "integrated_gradients", "occlusion")]
    return {
        "methods/attention.md": sorted(set(checks.METHODS) - set(states)),
        "methods/states.md": [*states, *maps.DUAL_METHODS],
        "methods/refinement.md": [*refine.RECIPES, *refine.SEARCHES],
        "methods/steering.md": list(steering.NAMED),
        "methods/detection.md": list(detection.SCORES),
        "methods/heads.md": list(heads.SCORES),
        "methods/faithfulness.md": list(METRICS),
        "methods/gaze-maps.md": list(gaze.MAP_METRICS),
        "methods/scanpaths.md": list(scanpaths.SCANPATH_METRICS),
    }


def test_every_method_has_its_section() -> None:
    for page, names in registries().items():
        # A section names its methods in the heading or before its equation.
        told = [f"{title}\n{body.partition('$$')[0]}" for title, body in sections(page).items()]
        assert names
        for name in names:
            assert any(f"`{name}`" in one for one in told), f"docs/{page} says nothing of {name}"


def knobs(body: str) -> set[str]:
    """Names between backticks where a section tells its knobs."""
    told = re.search(r"\*\*Knobs\*\*: (.*?)(?=\n\* \*\*)", body, flags=re.DOTALL)
    return set(re.findall(r"`([a-z_]\w*)`", told[1])) if told else set()


def test_the_knobs_of_steering_are_those_of_its_classes() -> None:
    from dataclasses import fields

    from vlmattn.steering import NAMED

    for title, body in sections("methods/steering.md").items():
        if (name := title.strip("`")) in NAMED:
            there = (
                {field.name for field in fields(NAMED[name])}
                | set(NAMED[name].presets)
                | {"scores", "mass", "fit_dagcd"}
            )
            assert knobs(body) <= there, f"{name} has no {knobs(body) - there}"


def test_the_knobs_of_maps_are_their_options() -> None:
    from vlmattn.api.checks import MAP_OPTIONS, METHOD_OPTIONS

    words = {"drop", "only", "auto", "mean", "black", "blur", "pixels", "patches", "signed", "positive", "logit"}
    shared = {"sinks", "raw", "normalise", "predicting", "query", "log_probability", *MAP_OPTIONS, *words}
    for page in ("methods/attention.md", "methods/states.md"):
        for title, body in sections(page).items():
            if (name := title.strip("`")) in METHOD_OPTIONS:
                there = set(METHOD_OPTIONS[name]) | (
                    shared if name in ("raw", "value", "relative") else shared - set(MAP_OPTIONS)
                )
                assert knobs(body) <= there, f"{name} has no {knobs(body) - there}"


def test_the_knobs_of_refinement_are_fields_of_recipes_and_searches() -> None:
    from dataclasses import fields

    from vlmattn.refine import RECIPES, Recipe, SearchRule

    there = {field.name for kind in (Recipe, SearchRule) for field in fields(kind)} | set(RECIPES)
    for title, body in sections("methods/refinement.md").items():
        if title not in ("The gate", "Measures"):
            assert knobs(body) <= there, f"{title}: {knobs(body) - there}"


def test_every_error_has_its_section() -> None:
    from vlmattn.core import errors

    classes = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    titles = {re.sub(r"<[^>]+>", "", title): (title, body) for title, body in sections("errors.md").items()}
    assert sorted(titles) == sorted(classes)
    for name, (title, body) in titles.items():
        assert f'<a id="{name}"></a>' in title
        assert "**Cause**: " in body
        assert "**Way out**: " in body


def test_the_tree_of_errors_is_that_of_the_code() -> None:
    from vlmattn.core import errors

    tree = re.search(r"^```text\n(.*?)^```$", text_of("errors.md"), flags=re.DOTALL | re.MULTILINE)
    assert tree
    above: list[str] = ["Exception"]
    for line in tree[1].splitlines():
        name = re.sub(r"\W", "", line)
        del above[line.index(name[0]) // 4 + 1 :]
        assert getattr(errors, name).__bases__[0].__name__ == above[-1]
        above.append(name)
    assert tree[1].count("\n") == len(sections("errors.md"))


def test_arrays_that_the_glossary_names_exist() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (REPO / "vlmattn").rglob("*.py"))
    axes = sections("glossary.md")["Axes"]
    names = set(re.findall(r"`(\w+)`", axes))
    assert len(names) > 10
    assert not [name for name in names if not re.search(rf"\b{name}\b", source)]
    letters = {letter for row in re.findall(r"^\| ([a-z](?:, [a-z])*) \|", axes, flags=re.MULTILINE) for letter in row}
    assert all(set(name.rsplit("_", 1)[1]) <= letters for name in names if "_" in name and "(" not in name)


def test_the_layers_are_those_of_the_test_of_imports(hooks: Any) -> None:
    from tests.house.test_layers import LAYERS

    page = text_of("architecture.md")
    assert page == hooks.with_layers(page), "run `python docs/build_hooks.py`"
    drawn = re.findall(r"^\| (\d+) \| `(\w+)` \| \S", page, flags=re.MULTILINE)
    there = [(str(rank), name) for rank, row in enumerate(LAYERS) for name in row if (REPO / "vlmattn" / name).is_dir()]
    assert drawn == there


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ("Args:\n    a: one. b, c: two\n        more. Not d: so.\n", ["a: one.", "b, c: two more. Not d: so."]),
        ("Raises:\n    SpecError: a; b. MapError: c.\n", ["SpecError: a; b.", "MapError: c."]),
    ],
)
def test_each_argument_has_a_line_of_its_own(given: str, lines: list[str]) -> None:
    pytest.importorskip("griffe")
    sys.path.insert(0, str(DOCS))
    try:
        from docstrings import rewritten
    finally:
        sys.path.remove(str(DOCS))
    title = given.partition("\n")[0]
    assert rewritten(f"What.\n\n{given}\nRest.\n") == "\n".join(
        ["What.", "", title, *(f"    {line}" for line in lines), "", "Rest.", ""]
    )


def test_an_included_section_ends_where_the_next_begins(hooks: Any) -> None:
    text = "# A\n\n## B c\n\nbody\n\n### D\n\n```python\n# no heading\n```\n\n## E\n\nother\n"
    assert hooks.section(text, "b-c") == "body\n\n## D\n\n```python\n# no heading\n```"
    with pytest.raises(ValueError, match="no section #no-heading"):
        hooks.section(text, "no-heading")


def test_links_lead_to_pages_or_are_text(hooks: Any) -> None:
    text = "[a](docs/gaze.md#x) [b](benchmarks/maps.py) ![c](docs/demo-sheet.png) [d](https://e.f)\n```\n[a](docs/gaze.md)\n```\n"
    assert hooks.relinked(text, "README.md", "index.md") == (
        "[a](gaze.md#x) b ![c](demo-sheet.png) [d](https://e.f)\n```\n[a](docs/gaze.md)\n```\n"
    )
    assert hooks.relinked("[a](../../README.md#ask)", "docs/tasks/x.md", "tasks/x.md") == "[a](../index.md#ask)"
    assert hooks.relinked("[a](gone.md)", "docs/tasks/x.md", "tasks/x.md") == "[a](gone.md)"


def test_pages_that_are_not_there_are_left_out(hooks: Any) -> None:
    nav = [{"A": ["a.md", {"B": "b.md"}]}, {"C": [{"API": "api/"}]}]
    assert hooks._filled(nav, {"a.md"}, ["api/x.md"]) == [{"A": ["a.md"]}, {"C": [{"API": [{"x": "api/x.md"}]}]}]
