"""The page in a real browser: what a person does, and that nothing leaves the machine."""

from __future__ import annotations

import _socket
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from vlmattn.app.examples import example

# Found, not imported: the page is served by another process.
pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")
WAIT = 60_000


BROKEN = "no/<b>model<b>"


class Served:
    """The app as the command serves it, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        models = (part for name in ("scene", "scene-prior", BROKEN) for part in ("--model", name))
        command = [sys.executable, "-m", "vlmattn", "app", "--port", "0", *models]
        settings = os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("vlmattn app: http://127.0.0.1:"), self.process.communicate()
        self.url = line.split()[2]
        self.port = int(self.url.rpartition(":")[2])

    def end(self) -> tuple[int, str]:
        """Exit code and what was complained about."""
        self.process.send_signal(signal.SIGTERM)
        _, complaints = self.process.communicate(timeout=60)
        return self.process.returncode, complaints


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    running = Served(folder)
    try:
        yield running
        # What was uploaded is there while it runs, and nothing is once it was told to end.
        assert len(list(folder.glob("vlmattn-app-*"))) == 1
        assert running.end() == (0, "")
        assert list(folder.glob("vlmattn-app-*")) == []
    finally:
        running.process.kill()
        running.process.communicate()


@pytest.fixture(scope="module")
def browser(server: Served, browser: Any) -> Any:
    """Closed before the server is."""
    return browser


class Tab:
    """One user's page, with everything that it asked for and complained about."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.goto(url)
        self.page.wait_for_selector("#va-ask")

    def after(self, act: Callable[[], Any], where: str = "#va-view") -> str:
        """What stands somewhere once an action was answered."""
        before = self.page.get_attribute("#va-alert [role=alert]", "data-turn")
        act()
        self.page.wait_for_function(
            "before => document.querySelector('#va-alert [role=alert]').dataset.turn !== before", arg=before
        )
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 60)))")
        return str(self.page.inner_text(where))

    def take(self, number: int) -> None:
        self.page.click(f"[data-example='{number}']")
        question = json.dumps(example(number).question)
        self.page.wait_for_function(f"document.querySelector('#va-question textarea').value === {question}")
        self.page.wait_for_selector("#va-picture img")

    def ask(self, question: str | None = None) -> None:
        if question is not None:
            self.page.fill("#va-question textarea", question)
        self.after(lambda: self.page.click("#va-ask"))

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    @property
    def alert(self) -> str:
        return str(self.page.text_content("#va-alert [role=alert]")).strip()

    @property
    def map(self) -> str:
        return str(self.page.get_attribute(".va-panel[data-run=plain] .va-map", "src"))

    def close(self) -> None:
        """Nothing was asked of anybody else, and nothing complained."""
        self.context.close()
        hosts = {urlsplit(url).hostname for url in self.requests if not url.startswith(("data:", "blob:"))}
        assert hosts == {"127.0.0.1"}
        assert self.errors == []


@pytest.fixture(scope="module")
def asked(browser: Any, server: Served) -> Iterator[Tab]:
    """A tab in which the first example was asked about."""
    tab = Tab(browser, server.url, accept_downloads=True)
    tab.take(0)
    tab.ask()
    yield tab
    tab.close()


def test_a_word_is_clicked_and_the_map_changes(asked: Tab) -> None:
    assert asked.page.inner_text("[data-pick='plain/answer/0']") == "purple"
    whole = asked.map
    asked.after(lambda: asked.page.click("[data-pick='plain/question/1']"))
    assert asked.map != whole
    assert asked.page.get_attribute("[data-pick='plain/question/1']", "aria-pressed") == "true"
    assert asked.page.eval_on_selector(".va-map", "e => e.complete && e.naturalWidth") > 0
    # By keyboard alone: the next word, and enter; the focus stays where it was.
    asked.after(lambda: (asked.page.keyboard.press("Tab"), asked.page.keyboard.press("Enter")))
    assert asked.page.get_attribute("[data-pick='plain/question/2']", "aria-pressed") == "true"
    asked.page.wait_for_function("document.activeElement.dataset.pick === 'plain/question/2'")
    asked.after(lambda: asked.page.click("[data-pick='plain/answer/all']"))
    assert asked.map == whole


def test_the_map_is_made_as_the_controls_say(asked: Tab) -> None:
    asked.tab("Map")
    layers = asked.page.locator("#va-layers input")
    for text, alert in (("1-", "layers must be numbers"), ("99", "layer"), ("1", "")):
        layers.fill(text)
        asked.after(lambda: layers.press("Enter"), "#va-alert" if text != "1" else "#va-view")
        assert asked.alert.startswith(alert) if alert else asked.alert == ""
    assert "layers 1 " in asked.page.inner_text(".va-small")
    asked.page.click("#va-method input")
    asked.after(lambda: asked.page.get_by_role("option", name="rollout").click())
    assert "rollout" in asked.page.inner_text(".va-legend")
    assert layers.is_disabled()
    asked.page.click("#va-method input")
    asked.after(lambda: asked.page.get_by_role("option", name="raw", exact=True).click())


def test_answers_stand_side_by_side(asked: Tab) -> None:
    asked.tab("Steering")
    asked.after(lambda: asked.page.check("#va-steer input"))
    asked.tab("Second look")
    asked.after(lambda: asked.page.click("#va-refine"))
    runs = asked.page.eval_on_selector_all(".va-panel", "all => all.map(e => e.dataset.run)")
    assert runs == ["plain", "steered", "again"]
    assert len(asked.page.query_selector_all(".va-bar")) == 1
    assert "steered: var" in asked.page.inner_text(".va-panel[data-run=steered] .va-head")
    asked.tab("Steering")
    asked.after(lambda: asked.page.uncheck("#va-steer input"))
    asked.tab("Second look")
    asked.after(lambda: asked.page.click("#va-unrefine"))
    assert len(asked.page.query_selector_all(".va-panel")) == 1


def test_words_are_checked_and_fixations_drawn(asked: Tab, tmp_path: Path) -> None:
    asked.tab("Check")
    asked.after(lambda: asked.page.click("#va-check"), "#va-words")
    assert asked.page.query_selector(".va-risk")
    asked.tab("Gaze")
    asked.after(lambda: asked.page.click("#va-synthetic"))
    assert "NSS" in asked.page.inner_text(".va-panel")
    table = tmp_path / "who <i>looked.csv"
    table.write_text("X,Y,ms\n60,50,0.2\n90,80,0.4\n", encoding="utf-8")
    asked.page.set_input_files("#va-table input[type=file]", str(table))
    asked.page.wait_for_function("[...document.querySelectorAll('input')].some(e => e.value === 'ms')")
    told = asked.after(lambda: asked.page.click("#va-gaze"), "#va-facts")
    assert "2 fixations of 1 scanpaths" in told
    asked.after(lambda: asked.page.click("#va-no-gaze"))
    assert "NSS" not in asked.page.inner_text(".va-panel")


def test_files_are_downloaded(asked: Tab, server: Served) -> None:
    asked.tab("Download")
    with asked.page.expect_download() as found:
        asked.page.click("#va-get-numbers")
    held = json.loads(Path(found.value.path()).read_text(encoding="utf-8"))
    assert held["question"] == example(0).question
    with asked.page.expect_download() as found:
        asked.page.click("#va-get-overlay")
    assert found.value.suggested_filename == "vlmattn.png"
    with Image.open(found.value.path()) as picture:
        assert "provenance" in str(picture.info).lower()


def test_every_field_has_a_name(asked: Tab) -> None:
    for name in ("Map", "Steering", "Second look", "Check", "Gaze", "Download"):
        asked.tab(name)
        nameless = asked.page.evaluate(
            """() => [...document.querySelectorAll('input, textarea, select, button, img')].filter(e =>
              e.offsetParent !== null && e.type !== 'file' && !(e.labels && e.labels.length) && !e.ariaLabel
              && !e.getAttribute('aria-labelledby') && !e.title && !(e.innerText || '').trim()
              && !e.hasAttribute('alt')).map(e => e.outerHTML.slice(0, 200))"""
        )
        assert nameless == []


def test_what_is_dropped_is_read_and_bad_files_are_told(browser: Any, server: Served, tmp_path: Path) -> None:
    tab = Tab(browser, server.url)
    tab.after(lambda: tab.page.click("#va-ask"))
    assert "no picture yet" in tab.alert
    bad = tmp_path / "bad <img src=x onerror=alert(1)>.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nand then nothing")
    tab.after(lambda: tab.page.set_input_files("#va-picture input[type=file]", str(bad)))
    assert tab.alert.startswith("bad ")
    assert "Traceback" not in tab.page.content()
    assert tab.page.query_selector("#va-alert img") is None
    held = io.BytesIO()
    example(1).picture.image.save(held, "PNG")
    dropped = tab.page.evaluate_handle(
        """bytes => { const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], 'mine.png', {type: 'image/png'})); return data; }""",
        list(held.getvalue()),
    )
    tab.page.wait_for_selector("#va-picture input[type=file]", state="attached")
    tab.page.dispatch_event("#va-picture button", "drop", {"dataTransfer": dropped})
    tab.page.wait_for_selector("#va-picture img")
    tab.after(lambda: tab.page.click("#va-ask"))
    assert "no question yet" in tab.alert
    tab.ask("Is there a <b>circle</b>?")
    assert tab.alert == ""
    assert "<b>circle</b>" in tab.page.inner_text("#va-words")
    assert "mine.png" in tab.page.inner_text("#va-facts")
    # Broken pictures are shown as such by the browser, which says so.
    tab.errors = [text for text in tab.errors if "Failed to load resource" not in text]
    tab.close()


def test_users_do_not_see_each_other(asked: Tab, browser: Any, server: Served) -> None:
    other = Tab(browser, server.url, viewport={"width": 420, "height": 800}, color_scheme="dark")
    assert other.page.query_selector(".va-map") is None
    assert other.page.inner_text("#va-words") == ""
    mine = asked.map
    other.take(1)
    other.ask()
    assert example(1).question.split()[-1].strip("?.") in other.page.inner_text("#va-words")
    assert asked.map == mine
    asked.after(lambda: asked.page.click("[data-pick='plain/question/0']"))
    assert example(0).picture.name in asked.page.inner_text("#va-facts")
    assert other.page.evaluate("document.documentElement.scrollWidth") <= 420
    assert other.page.evaluate("document.body.classList.contains('dark')")
    other.close()


def test_a_model_that_cannot_be_loaded_is_told(browser: Any, server: Served) -> None:
    tab = Tab(browser, server.url)
    tab.page.get_by_label("Model").click()
    tab.after(lambda: tab.page.get_by_role("option", name=BROKEN).click())
    assert BROKEN in tab.alert
    tab.close()


def test_only_this_machine_is_answered(server: Served) -> None:
    for host, status in (("evil.example", 400), ("127.0.0.1", 200)):
        line = http.client.HTTPConnection("127.0.0.1", server.port)
        line.sock = _connected(server.port)
        line.request("GET", "/", headers={"Host": host})
        assert line.getresponse().status == status
        line.close()


def _connected(port: int) -> Any:
    one = socket.socket()
    _socket.socket.connect(one, ("127.0.0.1", port))
    return one
