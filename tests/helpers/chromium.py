"""A Chromium, where one is found, that looks at one page and asks nothing of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)

Look = Callable[[int, str], dict[str, Any]]


def find() -> tuple[str | None, str]:
    """The first Chromium on PATH that runs, and why there is none: a distribution's stub is found and does not."""
    reason = f"no {', '.join(NAMES)} on PATH"
    for path in filter(None, map(shutil.which, NAMES)):
        try:
            done = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = f"{path} --version: {error}"
            continue
        if done.returncode == 0:
            return path, ""
        reason = f"{path} --version: exit code {done.returncode}: {done.stderr.strip()[:200]}"
    return None, reason


@contextmanager
def launched(path: str) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@contextmanager
def looking(path: str, page: Path, measure: str) -> Iterator[Look]:
    """`look(width, scheme)` opens the page and gives what `measure` finds there, with all that the page asked for."""
    with launched(path) as browser:

        def look(width: int, scheme: str) -> dict[str, Any]:
            opened = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
            asked: list[str] = []
            opened.on("request", lambda request: asked.append(request.url))
            opened.goto(page.as_uri())
            return {**opened.evaluate(measure), "asked": asked, "address": page.as_uri()}

        yield look
