"""What mkdocs needs besides the pages: pages made of files elsewhere, links that lead out of ``docs``, equations.

* The README is the first page; the changelog and the models' cards are pages too.
* A paragraph ``[include: Title](../README.md#title)`` becomes the section of that name.
* Every package has a page of its public names under ``api/``, made of the names in its ``__all__``.
* ``$…$`` and ``$$…$$`` become MathML, which browsers draw without a script.

``python docs/build_hooks.py`` writes the table of layers into ``docs/architecture.md``.
"""

from __future__ import annotations

import ast
import html
import os
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Files outside of docs/ that are pages, by the name of the page.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "datasets/scenes/README.md": "cards/scenes.md",
    "vlmattn/scene/models/scene/README.md": "cards/scene.md",
    "vlmattn/scene/models/scene-prior/README.md": "cards/scene-prior.md",
    "vlmattn/scene/models/scene-clip/README.md": "cards/scene-clip.md",
}
# Public modules below packages that have names of their own.
ALSO = ("core.errors", "adapters.testing", "gaze.scanpaths", "gaze.models", "evaluate.gaze", "scene.training")
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<to>[^)\s]+)\)")
INCLUDE = re.compile(r"^\[include: [^\]]+\]\((?P<to>[^)#]+)#(?P<anchor>[^)]+)\)$", flags=re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1$", flags=re.DOTALL | re.MULTILINE)
MATH = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):<code>(?P<short>~?)(?P<name>[\w.]+)</code>")


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub and the toc extension make it."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip())


def section(text: str, anchor: str) -> str:
    """The body of one section of a page, with the headings below it one level up or down to level 2 and more."""
    found = None
    for match in re.finditer(r"^(#+) (.+)$", FENCE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text), re.MULTILINE):
        if found is None and slug(match[2]) == anchor:
            found = (match.end(), len(match[1]))
        elif found is not None and len(match[1]) <= found[1]:
            return _levelled(text[found[0] : match.start()], found[1])
    if found is None:
        raise ValueError(f"there is no section #{anchor}")
    return _levelled(text[found[0] :], found[1])


def _levelled(body: str, level: int) -> str:
    """Headings of a section at level 2 and below."""
    parts = FENCE.split(body)
    if len(parts) == 1:
        return re.sub(r"^#+(?= )", lambda m: "#" * max(2, len(m[0]) - level + 1), body, flags=re.MULTILINE).strip()
    kept, at = [], 0
    for fence in FENCE.finditer(body):
        kept += [_levelled_text(body[at : fence.start()], level), fence[0]]
        at = fence.end()
    return "".join([*kept, _levelled_text(body[at:], level)]).strip()


def _levelled_text(text: str, level: int) -> str:
    return re.sub(r"^#+(?= )", lambda m: "#" * max(2, len(m[0]) - level + 1), text, flags=re.MULTILINE)


def page_of(path: str) -> str | None:
    """The page that shows a file of the repository; None where none does."""
    if path in ELSEWHERE:
        return ELSEWHERE[path] if (ROOT / path).is_file() else None
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    return None


def relinked(text: str, source: str, page: str) -> str:
    """Links of a file of the repository as links of its page; what no page shows is left as its text."""

    def link(match: re.Match[str]) -> str:
        to = match["to"]
        if re.match(r"[a-z]+:|#|/", to):
            return match[0]
        path, _, anchor = to.partition("#")
        there = page_of(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        if there is None:
            # A page's own mistake stays one, so that the build tells it.
            return match[0] if source.startswith("docs/") and not path.startswith("..") else match["text"]
        target = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"{match['image']}[{match['text']}]({target}{'#' + anchor if anchor else ''})"

    kept, at = [], 0
    for fence in FENCE.finditer(text):
        kept += [LINK.sub(link, text[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*kept, LINK.sub(link, text[at:])])


def included(text: str, source: str, page: str) -> str:
    """The text with the sections that it names, links as they are from its own page."""

    def body(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["to"]))
        return relinked(section((ROOT / path).read_text(encoding="utf-8"), match["anchor"]), path, page)

    kept, at = [], 0
    for match in INCLUDE.finditer(text):
        kept += [relinked(text[at : match.start()], source, page), body(match)]
        at = match.end()
    return "".join([*kept, relinked(text[at:], source, page)])


def public_names(init: Path) -> list[str]:
    """The names in ``__all__`` of a module, read without running it."""
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets) and node.value is not None:
            return [ast.literal_eval(one) for one in getattr(node.value, "elts", [])]
    return []


def api_modules() -> dict[str, list[str]]:
    """Public modules, by dotted name, with the names that their pages show."""
    package = ROOT / "vlmattn"
    names = sorted(p.parent.name for p in package.glob("*/__init__.py") if p.parent.name not in ("core", "cli"))
    found = {}
    for name in (*names, *ALSO):
        path = package.joinpath(*name.split("."))
        init = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if init.is_file():
            found[f"vlmattn.{name}"] = public_names(init)
    return found


def api_page(module: str, names: list[str]) -> str:
    """A page of one module's public names; ``VLMATTN_DOCS_API=names`` leaves out what they say, which is quick."""
    if os.environ.get("VLMATTN_DOCS_API") == "names":
        return f"# {module}\n\n" + "".join(f"## {name}\n\n" for name in names)
    members = "".join(f"\n        - {name}" for name in names)
    return f"# {module}\n\n::: {module}\n" + (f"    options:\n      members:{members}\n" if names else "")


def layers() -> list[tuple[str, ...]]:
    """The layers, topmost first, as the test of imports has them."""
    source = (ROOT / "tests/house/test_layers.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LAYERS":
            return [tuple(row) for row in ast.literal_eval(node.value)]
    raise ValueError("tests/house/test_layers.py has no LAYERS")


def layers_table() -> str:
    """The layers as a table, with the first line of what each package says of itself."""
    rows = ["| layer | package | what it is |", "|---|---|---|"]
    for number, row in enumerate(layers()):
        for name in row:
            init = ROOT / "vlmattn" / name / "__init__.py"
            if init.is_file():
                said = (ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or "").splitlines()
                what = said[0].replace("|", "\\|").replace("``", "`") if said else ""
                rows.append(f"| {number} | `{name}` | {what} |")
    return "\n".join(rows)


def with_layers(text: str) -> str:
    """A page with the table of layers between its two marks."""
    begin, end = "<!-- layers -->", "<!-- end of layers -->"
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{layers_table()}\n{end}{rest.partition(end)[2]}"


def mathml(content: str) -> str:
    """Page content with MathML in place of TeX."""
    from latex2mathml.converter import convert

    def drawn(match: re.Match[str]) -> str:
        block = match["open"] == "["
        return convert(html.unescape(match["tex"]).strip(), display="block" if block else "inline")

    return MATH.sub(drawn, content)


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made of other files, and leaves out of the navigation what is not there."""
    from mkdocs.structure.files import File

    for path, uri in ELSEWHERE.items():
        if (ROOT / path).is_file():
            text = (ROOT / path).read_text(encoding="utf-8")
            files.append(File.generated(config, uri, content=relinked(text, path, uri)))
    pages = api_modules()
    for module, names in pages.items():
        files.append(File.generated(config, f"api/{module}.md", content=api_page(module, names)))
    config.nav = _filled(config.nav, {file.src_uri for file in files}, [f"api/{m}.md" for m in pages])
    named = set(_named(config.nav))
    more = sorted(f.src_uri for f in files if f.src_uri.endswith(".md") and f.src_uri not in named)
    if more:
        config.nav.append({"More": more})
    return files


def _filled(nav: list[Any], there: set[str], api: list[str]) -> list[Any]:
    """The navigation without pages that are not there, and with those of the API."""
    kept: list[Any] = []
    for entry in nav:
        title, value = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(value, list):
            kept.append({title: _filled(value, there, api)})
        elif value == "api/":
            kept.append({title: [{uri[4:-3]: uri} for uri in api]})
        elif value in there:
            kept.append(entry)
    return kept


def _named(nav: list[Any]) -> list[str]:
    found: list[str] = []
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += _named(value) if isinstance(value, list) else [value]
    return found


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Included sections, and links to pages."""
    uri = page.file.src_uri
    return included(markdown, f"docs/{uri}", uri) if (DOCS / uri).is_file() else markdown


def on_page_content(content: str, **_: Any) -> str:
    """Equations as MathML; roles of docstrings as links to what they name, where that is told in full."""

    def reference(match: re.Match[str]) -> str:
        shown = match["name"].rsplit(".", 1)[-1] if match["short"] else match["name"]
        if "." not in match["name"]:
            return f"<code>{shown}</code>"
        return f'<autoref optional identifier="{match["name"]}"><code>{shown}</code></autoref>'

    return ROLE.sub(reference, mathml(content)).replace("::</p>", ":</p>")


if __name__ == "__main__":
    ARCHITECTURE = DOCS / "architecture.md"
    ARCHITECTURE.write_text(with_layers(ARCHITECTURE.read_text(encoding="utf-8")), encoding="utf-8")
