"""Find a Chromium, start it without its own network requests, and measure a page in it."""

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

Measure = Callable[[int, str], dict[str, Any]]


def find() -> tuple[str | None, str]:
    """Return the first Chromium on PATH that runs; otherwise None and the reason.

    Some distributions install a stub under this name that only prints a message.
    """
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
    """Start the browser, and close it at the end of the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@contextmanager
def measured(path: str, page: Path, script: str) -> Iterator[Measure]:
    """Yield `measure(width, scheme)`, which opens the page and returns the result of `script`.

    The result also has `requests`, all URLs that the page requested, and `address`, its own.
    """
    with launched(path) as browser:

        def measure(width: int, scheme: str) -> dict[str, Any]:
            opened = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
            requests: list[str] = []
            opened.on("request", lambda request: requests.append(request.url))
            opened.goto(page.as_uri())
            return {**opened.evaluate(script), "requests": requests, "address": page.as_uri()}

        yield measure
