"""`reranker data describe PATH` prints the numbers of pairs and writes a page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len

from reranker.cli import main
from tests.helpers.chromium import measured

EVIL = '<script>document.title = "owned"</script>\x1b[2J'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of 12 parts with 10 pairs each; their texts are markup or very long."""
    place = tmp_path / "pairs"
    place.mkdir()
    for part in range(12):
        table = pa.table(
            {
                "user_id": [f"{EVIL} user {part}"] * 10,
                "user_ctx": [f"{EVIL} context {part} " + "long " * 300] * 9 + [" "],
                "book_id": list(range(10)),
                "book_text": [f"{EVIL} 長い本の題名 {i}" for i in range(10)],
                "label": [i % 3 == 0 for i in range(10)],
            }
        )
        pq.write_table(table, place / f"part.{part}.parquet")
    (place / "_SUCCESS").touch()
    return place


def described(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    code = main.main(["data", "describe", *map(str, args)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


@pytest.mark.parametrize("width", [80, 140])
def test_the_tables_fit_the_terminal(
    width: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    place, *lines = described(capsys, folder).splitlines()
    assert place.startswith(f"{folder}: 12 files, ")
    assert max(map(cell_len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for shown in (
        "2 more files 20",
        "rows 120 dropped: no user_ctx 12 pairs 108 users 12 contexts 12 books 9",
        "1 (positive) 36 33.3%",
        "0 (negative) 72 66.7%",
        "negatives per positive 2 2 2 2 2 2",
        "user_ctx string 0 12",
    ):
        assert shown in text
    header = next(line for line in lines if line.split()[:1] == ["user_id"] and "label" in line)
    assert header.split() == ["user_id", "user_ctx", "book_id", "book_text", "label"]
    assert "\x1b" not in "".join(lines)


def test_json_has_the_same_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(described(capsys, folder, "--format", "json"))
    assert facts["n"]["pairs"] == 108 and facts["dropped"]["user_ctx"] == 12
    assert [file["rows"] for file in facts["files"]] == [10] * 12
    assert facts["per_user"]["negatives_per_positive"]["mean"] == 2
    assert facts["head"][0]["label"] == 1 and facts["head"][0]["user_id"] == f"{EVIL} user 0"
    assert len(facts["examples"]) == 4


def test_parts_and_several_paths(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = json.loads(described(capsys, folder, "--parts", "0,11", "--format", "json"))
    assert [Path(file["name"]).name for file in chosen["files"]] == [
        "part.0.parquet",
        "part.11.parquet",
    ]
    expanded = json.loads(described(capsys, *folder.glob("part.1*"), "--format", "json"))
    pattern = json.loads(described(capsys, folder / "part.1*", "--format", "json"))
    assert len(pattern["files"]) == 3 and pattern["digest"] == expanded["digest"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["missing"], "'missing' does not exist"),
        (["~/missing.parquet"], "'~/missing.parquet' does not exist"),
        (["{folder}", "data=demo"], "either a pairs file or a source"),
        (["data=demo", "--html", "x.html"], "--html needs the path of a pairs file"),
        (["{folder}", "--parts", "12"], "there is no part 12"),
        (["{folder}", "--html", "{folder}/none/x.html"], "cannot be written"),
        (["{folder}", "--html", "{folder}"], "cannot be written"),
    ],
)
def test_errors_are_one_line(
    args: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("{folder}", str(folder)) for word in args]
    assert main.main(["data", "describe", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("reranker: ") and err.count("\n") == 1


@pytest.fixture
def page(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = described(capsys, folder, "--html", folder / "page.html")
    assert f"page: {folder / 'page.html'}" in out
    return folder / "page.html"


def test_the_page_is_escaped_and_complete(page: Path) -> None:
    html = page.read_text()
    assert "<script" not in html and html.count("&lt;script&gt;") > 20
    targets = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)", html)
    ids = re.findall(r"\bid=\"([^\"]+)\"", html)
    assert targets and {target[1:] for target in targets} <= set(ids)
    assert re.findall(r"<figcaption>([^<]+)", html) == [
        "Users by number of positives",
        "Users by number of negatives",
        "Negatives per positive",
        "Pairs by characters of each text",
        "Pairs by words of each text",
    ]


def test_a_page_of_no_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("user_id", "user_ctx", "book_text", "label")
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in names}), tmp_path / "a.pq")
    out = described(capsys, tmp_path, "--html", tmp_path / "a.html")
    assert "rows 0 pairs 0 users 0" in " ".join(out.split())
    assert "no pairs" in (tmp_path / "a.html").read_text()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_its_window(width: int, page: Path, chromium_path: str) -> None:
    script = """() => ({width: document.documentElement.scrollWidth, title: document.title})"""
    with measured(chromium_path, page, script) as measure:
        found = measure(width, "dark")
    assert found["width"] == width and found["title"] == "Pairs"
    assert found["requests"] == [found["address"]]
