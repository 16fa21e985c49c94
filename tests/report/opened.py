"""A report open in a browser, with what tests ask of it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.overlay import colour_table
from vlmattn.report import write_report

WIDE = {"width": 1200, "height": 900}


class Opened:
    """A page, and everything that went wrong on it: console, scripts, requests, dialogs."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_context(**{"viewport": WIDE, "offline": True, **context}).new_page()
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=20_000)

    def word(self, text: str, panel: int = 0) -> Any:
        return self.page.locator("article").nth(panel).locator("button.word", has_text=text).first

    @property
    def status(self) -> str:
        return str(self.page.get_by_role("status").inner_text())

    def switch(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name)

    def slide(self, name: str, value: int) -> None:
        self.page.get_by_label(name, exact=True).fill(str(value))

    def choose(self, name: str, value: str) -> None:
        self.page.get_by_label(name, exact=True).select_option(value)

    def ends(self) -> tuple[float, float]:
        """The values of the colour scale."""
        low, high = self.page.locator(".bar > span").all_inner_texts()[:2]
        return float(low), float(high)

    def pixels(self, stage: int = 0) -> NDArray[np.uint8]:
        """(H, W, 4) of a map's canvas."""
        address = self.page.locator(".stage canvas").nth(stage).evaluate("(canvas) => canvas.toDataURL()")
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
            return np.asarray(image.convert("RGBA"))

    def levels(self, wh: tuple[int, int], stage: int = 0) -> NDArray[np.int64]:
        """(H, W) step of the colour scale in the middle of every pixel of the original, -1 where nothing is drawn."""
        pixels = self.pixels(stage)
        height, width = pixels.shape[:2]
        x = ((np.arange(wh[0]) + 0.5) * width / wh[0]).astype(int)
        y = ((np.arange(wh[1]) + 0.5) * height / wh[1]).astype(int)
        found = pixels[np.ix_(y, x)]
        codes = {tuple(int(v) for v in colour): level for level, colour in enumerate(colour_table("ember"))}
        return np.array([[codes[tuple(p[:3])] if p[3] == 255 else -1 for p in row] for row in found.tolist()])


def opened(browser: Any, folder: Path, shown: Any, *, context: dict[str, Any] | None = None, **options: Any) -> Opened:
    """A report of something, written and opened."""
    return Opened(browser, write_report(folder / "page.html", shown, **options), **(context or {}))
