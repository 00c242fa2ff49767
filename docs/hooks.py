"""Show README.md as the first page of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"


def on_page_markdown(markdown: str, *, page: Any, **kwargs: Any) -> str:
    """Return the README, with links relative to docs/, for index.md and other pages unchanged."""
    if page.file.src_uri != "index.md":
        return markdown
    return README.read_text(encoding="utf-8").replace("](docs/", "](")
