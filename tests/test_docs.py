"""The README and the documentation: length, links, paths, commands and the package map."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from reranker import config
from reranker.cli import main
from reranker.config import ROOT
from reranker.data.sources import bookdb
from tests.helpers import architecture_map
from tests.test_design import BELOW

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
PAGE_IDS = [str(page.relative_to(ROOT)) for page in PAGES]
FOLDERS = ("conf", "docs", "experiments", "reranker", "tests")
MAX_IMAGE_BYTES = 300_000
# Values for the placeholders of the documented commands.
PLACEHOLDERS = {"FOLDER": "folder", "BUCKET": "bucket", "PREFIX": "prefix", "HOST:PORT": "h:1"}
each_page = pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)


def blocks(page: Path) -> list[str]:
    """Return the contents of a page's fenced code blocks."""
    return re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return re.sub(r"^```\w*\n.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def command_lines(program: str) -> list[str]:
    """Return the arguments of the documented calls of a program, without comments.

    A name in running text, such as `reranker ui`, is not a call.
    """
    found = []
    for page in PAGES:
        lines = [line for block in blocks(page) for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+ [^`\n]+ [^`\n]+)`", prose(page))
        pattern = rf"^(?:\.venv/bin/)?{program} (.+?)(?:\s+#.*)?$"
        found += [match[1] for line in lines if (match := re.match(pattern, line))]
    return sorted(set(found))


def overrides(line: str) -> list[str]:
    for name, value in PLACEHOLDERS.items():
        line = line.replace(name, value)
    return [word for word in shlex.split(line) if "=" in word and not word.startswith("-")]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and MkDocs make of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 160


@each_page
def test_lines_are_short_except_in_tables(page: Path) -> None:
    if page.name == "configuration.md":
        pytest.skip("this page is generated")
    text = page.read_text() if page == README else prose(page)
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > 100] == []


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    for link in links:
        name, _, anchor = link.partition("#")
        target = page if not name else page.parent / name
        assert target.is_file(), f"{page.name} links to {link}, which does not exist"
        assert not anchor or anchor in anchors(target), f"{page.name}: no heading for {link}"


def test_links_of_the_readme_work_on_the_site() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", README.read_text())
    assert [link for link in links if not link.startswith(("docs/", "#"))] == []


@each_page
def test_paths_in_backticks_exist(page: Path) -> None:
    paths = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", page.read_text())
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert missing == []


def test_the_parquet_example_is_a_valid_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [example] = [block for block in blocks(ROOT / "docs/data.md") if "to_parquet" in block]
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/data.md", "exec"), {})
    assert bookdb.read(tmp_path / "my_data").books.num_rows == 2
    [ratings] = bookdb.ratings(tmp_path / "my_data", batch_rows=1000)
    assert ratings["rating"].to_pylist() == [5, 2]


@each_page
def test_python_examples_are_valid_python(page: Path) -> None:
    for example in re.findall(
        r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL
    ):
        compile(example, page.name, "exec")


def test_images_are_small() -> None:
    images = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".png", ".svg")]
    assert images
    sizes = {path.name: path.stat().st_size for path in images}
    assert {name: size for name, size in sizes.items() if size > MAX_IMAGE_BYTES} == {}


@pytest.mark.parametrize("line", [*command_lines("python main.py"), *command_lines("torchrun")])
def test_documented_runs_compose(line: str) -> None:
    given = overrides(line)
    config.check_overrides(given)
    swept = [word for word in given if " -m " in f" {line} " and "," in word]
    single = [word for word in given if word not in swept and not word.startswith("hydra")]
    first = [re.sub(r"=([^,\[]+),.*", r"=\1", word) for word in swept]
    config.compose([*single, *first])


@pytest.mark.parametrize("line", command_lines("reranker"))
def test_documented_commands_parse(line: str) -> None:
    args = main._parser().parse_args(shlex.split(line))
    assert args.command in main.COMMANDS


def test_the_package_map_is_up_to_date() -> None:
    text = architecture_map.PAGE.read_text()
    assert text == architecture_map.replace(text), "the package map is old; run `make map`"


def test_the_import_directions_of_the_documentation_are_those_that_are_checked() -> None:
    layers = next(b for b in blocks(architecture_map.PAGE) if b.startswith("main\n"))
    order = [line.split(", ") for line in layers.splitlines()]
    place = {package: i for i, line in enumerate(order) for package in line}
    assert set(place) == {"main", *BELOW}
    for package, lower in BELOW.items():
        assert all(place[package] < place[other] for other in lower), package
