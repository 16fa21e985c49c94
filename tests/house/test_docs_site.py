"""The built site: strict, without orphans, without a request to anywhere, and usable from its folder."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for needed in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
    pytest.importorskip(needed)

REPO = Path(__file__).resolve().parents[2]


def built(config: Path, folder: Path) -> list[str]:
    """Builds a site; gives the warnings."""
    import logging

    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logging.getLogger("mkdocs").addHandler(listener)
    try:
        settings = load_config(str(config), site_dir=str(folder), strict=False)
        settings.plugins.on_startup(command="build", dirty=False)
        build(settings)
        settings.plugins.on_shutdown()
    finally:
        logging.getLogger("mkdocs").removeHandler(listener)
    return said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as built by `mkdocs build --strict`, but that pages of the API list names only."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMATTN_DOCS_API", "names")
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.chdir(REPO)
        assert built(REPO / "mkdocs.yml", folder) == []
    return folder


def test_no_page_is_an_orphan(site: Path) -> None:
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")} - {"404.html"}
    linked = set(
        re.findall(r'<a href="([^"#]+)" class="md-nav__link', (site / "index.html").read_text(encoding="utf-8"))
    )
    assert pages - {"index.html"} <= linked | {"index.html"}


def test_every_file_of_the_navigation_is_there_or_known_to_be_optional() -> None:
    """Pages of parts that an installation of the repository may lack are named here, so that a slip of the pen is not
    taken for one."""
    optional = {"report.md", "export.md", "pipelines.md", "service.md", "app.md", "notebooks/README.md"}
    named = set(re.findall(r"(?:: |- )([\w/-]+\.md)$", (REPO / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    made = {
        "index.md",
        "changelog.md",
        *(f"cards/{name}.md" for name in ("scene", "scene-prior", "scene-clip", "scenes")),
    }
    assert len(named) > 40
    assert {name for name in named if not (REPO / "docs" / name).is_file()} <= optional | made


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a](gone.md)", "gone.md"),
        ("[a](first.md#nowhere)", "nowhere"),
        ("![a](gone.png)", "gone.png"),
        ("[a](/absolute.md)", "absolute"),
    ],
)
def test_a_broken_link_is_a_warning(text: str, complaint: str, tmp_path: Path) -> None:
    settings = (REPO / "mkdocs.yml").read_text(encoding="utf-8")
    validation = re.search(r"^validation:\n(?:  .*\n)+", settings, flags=re.MULTILINE)
    assert validation
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "first.md").write_text("# First\n", encoding="utf-8")
    (tmp_path / "docs" / "index.md").write_text(f"# Start\n\n{text}\n", encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\nplugins: []\n{validation[0]}", encoding="utf-8")
    assert any(complaint in warning for warning in built(tmp_path / "mkdocs.yml", tmp_path / "site"))


def test_equations_are_mathml_and_none_is_left_as_tex(site: Path) -> None:
    for page in (site / "methods").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "arithmatex" not in text, page
        assert page.name == "index.html" or text.count('display="block"') == text.count("When it misleads"), page
        assert not re.search(r"<m(?:i|o|text)>\s*\\", text), f"{page}: a command that latex2mathml does not know"


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """In the files: no script, style sheet, font, picture or frame of another host; links may lead there."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'(?:src|srcset)="(?:https?:)?//', text), page
        assert not re.search(r'<link [^>]*href="(?:https?:)?//', text), page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def searched(page: Any, words: str) -> list[str]:
    """Titles that the search box finds."""
    # Typed, as the search listens to keys.
    page.locator(".md-search__input").first.press_sequentially(words)
    page.wait_for_selector(".md-search-result__item h1", state="attached", timeout=60_000)
    return page.locator(".md-search-result__item h1").all_inner_texts()  # type: ignore[no-any-return]


def test_served_it_asks_no_other_host_and_search_and_dark_work(site: Path, browser: Any) -> None:
    with served(site) as address:
        page = browser.new_page(color_scheme="light")
        asked: list[str] = []
        faults: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address + "index.html")
        assert page.evaluate("document.body.dataset.mdColorScheme") == "default"
        # From the system's choice to light, and from light to dark.
        for _ in range(2):
            page.locator("label[for^=__palette]:visible").first.click()
        assert page.evaluate("document.body.dataset.mdColorScheme") == "slate"
        assert any("Refinement" in title for title in searched(page, "vicrop"))
        page.goto(address + "methods/attention.html")
        sizes = page.evaluate("[...document.querySelectorAll('math')].map(m => m.getBoundingClientRect().height)")
        assert min(sizes) > 5
        assert page.evaluate("document.querySelector('mfrac').getBoundingClientRect().height") > 18
        page.close()
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert faults == []


def test_from_the_folder_links_and_search_work(site: Path, browser: Any) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "index.html").as_uri())
    assert any("Sinks" in title for title in searched(page, "massive activations"))
    page.goto((site / "errors.html").as_uri() + "#MapError")
    assert page.evaluate("document.getElementById('MapError').getBoundingClientRect().top < innerHeight")
    page.close()
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def test_the_index_of_the_search_holds_every_method_page(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {f"methods/{path.name}" for path in (site / "methods").glob("*.html")} <= found
