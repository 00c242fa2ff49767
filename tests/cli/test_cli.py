"""The command `reranker`: input, output and error messages."""

from __future__ import annotations

import io
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from reranker.cli import main, rerank
from reranker.config import ROOT, from_hydra
from reranker.data import ContextBuilder
from reranker.data.sources.demo import books
from reranker.errors import ModelError
from reranker.serving.reranker import Reranker

BOOKS = pd.DataFrame(
    [
        (1, "Dune", "Frank Herbert", "science fiction", "Dune"),
        (2, "Emma", "Jane Austen", "romance", "Emma, by J. Austen"),
    ],
    columns=["book_id", "title", "authors", "genres", "book_text"],
)
EDITIONS = pd.DataFrame({"book_id": [1, 2], "book": [0, 1]})
DUNE = {"book_id": 1, "score": 4.0, "text": "Dune"}
EMMA = {"book_id": 2, "score": 18.0, "text": "Emma, by J. Austen"}

Run = Callable[..., tuple[int, str, str]]


def lengths(queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
    """Return the length of each candidate as its score, minus 1 if the query is empty."""
    scores = [len(c) - (q == "") for q, c in zip(queries, candidates, strict=True)]
    return np.array(scores, dtype=np.float32)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line and returns exit code, stdout and stderr.

    The model scores a candidate by its length.
    """
    contexts = ContextBuilder(BOOKS, n_titles=3, n_genres=3, positive_rating=4.0)

    def load(uri: str, *, tracking_uri: str | None = None, variant: str | None = None) -> Reranker:
        if uri != rerank.MODEL:
            raise ModelError(f"{uri}: not in {tracking_uri}.")
        return Reranker(lengths, contexts, BOOKS, editions=EDITIONS)

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return (main.main(args), *capsys.readouterr())

    monkeypatch.setattr(Reranker, "load", load)
    return run


def rerank_json(run: Run, *args: str) -> Any:
    code, out, err = run("rerank", *args, "--format", "json")
    assert (code, err) == (0, "")
    return json.loads(out)


def table_cells(out: str) -> list[list[str]]:
    lines = [line for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def ranked(*books: dict[str, Any]) -> dict[str, Any]:
    return {"ranked": [{"rank": i, **book} for i, book in enumerate(books, start=1)]}


def test_a_context_and_candidates_as_options(run: Run) -> None:
    options = ("--user-ctx", "Likes: It.", "--candidate", "It", "--candidate", "Ulysses")
    texts = [{"book_id": None, "score": float(len(t)), "text": t} for t in ("Ulysses", "It")]
    assert rerank_json(run, *options) == ranked(*texts)


def test_the_named_variant_is_loaded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str | None] = []
    model = Reranker.load(rerank.MODEL)
    monkeypatch.setattr(
        Reranker, "load", lambda uri, *, tracking_uri, variant: loaded.append(variant) or model
    )
    line = ("rerank", "--user-ctx", "Likes: Dune", "--candidate-ids", "1")
    assert run(*line)[0] == run(*line, "--variant", "int8")[0] == 0
    assert loaded == [None, "int8"]


def test_a_model_may_be_the_folder_of_a_bundle(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, opened = Reranker.load(rerank.MODEL), []
    monkeypatch.setattr(
        Reranker, "from_folder", lambda folder, *, variant: opened.append(folder) or model
    )
    line = ("--user-ctx", "Likes: Dune", "--candidate", "Ulysses")
    assert rerank_json(run, *line, "--model", str(tmp_path))["ranked"][0]["text"] == "Ulysses"
    assert opened == [tmp_path]
    code, _, error = run("rerank", *line, "--model", str(tmp_path / "other"))
    assert code != 0 and "other: not in" in error


def test_a_history_and_ids_as_options(run: Run) -> None:
    options = ("--history", "1,2", "--ratings", "5,3.5", "--candidate-ids", "1,2")
    assert rerank_json(run, *options) == ranked(EMMA, DUNE)


def test_one_json_object_gives_one_object(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    candidates = ["Émile", 1, {"book_id": "x", "text": "It"}]
    path.write_text(json.dumps({"user_ctx": "Likes: Dune.", "candidates": candidates}))
    emile = {"book_id": None, "score": 5.0, "text": "Émile"}
    it = {"book_id": "x", "score": 2.0, "text": "It"}
    assert rerank_json(run, "--input", str(path)) == ranked(emile, DUNE, it)


def test_a_json_list_on_stdin_gives_a_list(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [
        {"history": [1], "ratings": [4], "candidates": [1, 2]},
        {"user_ctx": "Likes: Emma.", "candidates": [1]},
    ]
    data = b"\xef\xbb\xbf  " + json.dumps(requests).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert rerank_json(run, "--input", "-") == [ranked(EMMA, DUNE), ranked(DUNE)]


def test_csv_rows_are_grouped_by_user_in_file_order(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        "user_id,user_ctx,book_id,book_text\n"
        'ann,Likes: Dune.,1,\nbob,Likes: Dune.,9,"It, by S. King"\nann,Likes: Dune.,2,\n'
    )
    it = {"book_id": 9, "score": 14.0, "text": "It, by S. King"}
    assert rerank_json(run, "--input", str(path)) == [
        {"user_id": "ann", **ranked(EMMA, DUNE)},
        {"user_id": "bob", **ranked(it)},
    ]


def test_csv_rows_without_user_id_are_grouped_by_context_and_text_ids_stay_text(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "pairs"
    path.write_text(
        "book_text,book_id,user_ctx\nIt,a1,Likes: X.\nEmma,2,Likes: X.\nIt,2,Likes: Y.\n"
    )
    it, emma = {"score": 2.0, "text": "It"}, {"book_id": "2", "score": 4.0, "text": "Emma"}
    assert rerank_json(run, "--input", str(path)) == [
        ranked(emma, {"book_id": "a1", **it}),
        ranked({"book_id": "2", **it}),
    ]


def test_csv_ids_with_leading_zeros_stay_text(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        "user_ctx,book_id,book_text\na,0061120081,It\na,1,Emma\na,0001,Ulysses\na,100,Ida\n"
    )
    result = rerank_json(run, "--input", str(path))
    assert [row["book_id"] for row in result[0]["ranked"]] == ["0001", "1", "100", "0061120081"]


def test_top_k_limits_every_request(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "requests.json"
    request = {"user_ctx": "a", "candidates": [1, 2, "It"]}
    path.write_text(json.dumps([request, {**request, "top_k": 2}]))
    assert [len(r["ranked"]) for r in rerank_json(run, "--input", str(path))] == [3, 2]
    short = rerank_json(run, "--input", str(path), "--top-k", "1")
    assert short == [ranked(EMMA), ranked(EMMA)]


def test_the_table_shows_ranks_scores_and_printable_texts(run: Run) -> None:
    candidates = ("--candidate", "[red]It\x1b[31m", "--candidate-ids", "1,2")
    code, out, _ = run("rerank", "--user-ctx", "a", *candidates)
    assert code == 0
    assert table_cells(out) == [
        ["1", "2", "18.0000", "Emma, by J. Austen"],
        ["2", "", "12.0000", "[red]It [31m"],
        ["3", "1", "4.0000", "Dune"],
    ]


def test_a_long_text_is_cut_to_the_width_of_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    candidates = ("--candidate", "long " * 100, "--candidate-ids", "1")
    _, out, _ = run("rerank", "--user-ctx", "a", *candidates)
    rows = table_cells(out)
    assert [row[:3] for row in rows] == [["1", "", "500.0000"], ["2", "1", "4.0000"]]
    assert rows[0][3].startswith("long long") and rows[0][3].endswith("…")
    assert max(map(len, out.splitlines())) <= 60


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "r.json",
            '{"user_ctx": "a",\n "candidates": [1,]}',
            "r.json, line 2, column 19: not JSON",
        ),
        ("r.json", "", "r.json, line 1, column 1: not JSON"),
        ("r.json", "[]", "r.json: an empty list"),
        (
            "r.json",
            "3",
            "r.json is of type int; give an object with user_ctx, history, ratings, timestamps",
        ),
        (
            "r.json",
            '{"history": [1], "ratings": [NaN], "candidates": [1]}',
            "r.json: NaN is not JSON",
        ),
        ("r.json", "[" * 100_000, "r.json: nested too deeply"),
        ("r.json", '{"candidates": [' + "9" * 5000 + "]}", "or a number is too long"),
        ("r.json", '[{"user_ctx": "a", "candidates": [1]}, 7]', "r.json, request 1 is of type int"),
        (
            "r.json",
            '{"user_ctx": "a", "books": [1]}',
            "r.json: 'books' is unknown; a request has user_ctx",
        ),
        ("r.json", '{"user_ctx": "a"}', "r.json: candidates is missing"),
        ("r.json", '{"user_ctx": "a", "candidates": []}', "r.json: candidates is empty"),
        (
            "r.json",
            '[{"user_ctx": "a", "candidates": [1, 7]}]',
            "r.json, request 0: candidates[1].book_id=7 is not in",
        ),
        ("r.json", '{"user_ctx": "", "candidates": [1]}', "r.json: user_ctx is blank"),
        (
            "r.json",
            '{"user_ctx": "a\\ud800", "candidates": [1]}',
            "r.json: user_ctx holds half of a surrogate pair",
        ),
        ("r.csv", "", "r.csv, line 1: columns are missing; expected user_ctx, book_id"),
        (
            "r.csv",
            "user_ctx,book\na,1\n",
            "r.csv, line 1: columns are user_ctx, book; expected user_ctx, book_id",
        ),
        (
            "r.csv",
            "user_ctx,book_id,book_id\na,1,2\n",
            "r.csv, line 1: columns are user_ctx, book_id, book_id",
        ),
        ("r.csv", "user_ctx,book_id\n", "r.csv: no rows below the header"),
        ("r.csv", "user_ctx,book_id\na,1\na\n", "r.csv, line 3: expected 2 values"),
        ("r.csv", "user_ctx,book_id\na,1,b\n", "r.csv, line 2: expected 2 values"),
        ("r.csv", "user_ctx,book_id\na,1\n ,2\n", "r.csv, line 3: user_ctx is blank"),
        ("r.csv", 'user_ctx,book_id\na,"1\n', "r.csv, line 2: not CSV"),
        (
            "r.csv",
            "user_ctx,book_id\na,1\na,1\n",
            "r.csv, user from line 2: candidates[1].book_id=1 repeats",
        ),
        (
            "r.csv",
            "user_id,user_ctx,book_id\nu,a,1\nu,b,2\n",
            "r.csv, line 3: user_id 'u' has a different user_ctx",
        ),
        (
            "r.csv",
            "user_ctx,book_id\na,x\n",
            "r.csv, user from line 2: candidates[0].text is missing; book_id='x'",
        ),
        (
            "r.csv",
            "user_ctx,book_id\na,01\na,2\n",
            "r.csv, user from line 2: candidates[0].text is missing; book_id='01'",
        ),
        (
            "r.json",
            '{"user_ctx": "a", "candidates": [1], "top_k": 0}',
            "r.json: top_k=0 is not an integer of at least 1",
        ),
    ],
)
def test_an_error_in_the_input_names_the_file_and_the_line_or_field(
    run: Run, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    code, out, err = run("rerank", "--input", str(tmp_path / name), "--format", "json")
    assert (code, out) == (2, "")
    assert message in err.replace(str(tmp_path) + "/", "")
    assert err.startswith("reranker: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "nothing to rank: give --input FILE, or --user-ctx"),
        (("--input", "r.json", "--user-ctx", "a"), "--input contains complete requests"),
        (("--input", "no/such.json"), "no/such.json: cannot be read (No such file or directory)"),
        (("--input", "."), ".: cannot be read (Is a directory)"),
        (("--user-ctx", "a"), "command line: candidates is empty"),
        (("--candidate", "a"), "command line: user_ctx, history: give exactly one, got neither"),
        (
            ("--user-ctx=a", "--candidate=b", "--model=models:/x/1", "--tracking-uri=sqlite:///y"),
            "not in sqlite:///y",
        ),
    ],
)
def test_an_invalid_command_line_says_what_to_give(
    run: Run, args: tuple[str, ...], message: str
) -> None:
    code, out, err = run("rerank", *args)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("rerank", "--history", "1,x"),
            "argument --history: expected integers separated by commas, got '1,x'",
        ),
        (
            ("rerank", "--ratings", "4;5"),
            "argument --ratings: expected numbers separated by commas, got '4;5'",
        ),
        (("rerank", "--best", "3"), "unrecognized arguments: --best 3"),
        (
            ("export", "RUN", "--variant", "int8", "--calibration-pairs", "0"),
            "argument --calibration-pairs: expected an integer of at least 1, got '0'",
        ),
        (
            ("ui", "--port", "65536"),
            "argument --port: expected an integer from 1 to 65535, got '65536'",
        ),
        (("ui", "--port", "http"), "expected an integer from 1 to 65535, got 'http'"),
    ],
)
def test_a_usage_error_says_what_was_expected(
    run: Run, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*args)
    assert message in capsys.readouterr().err


COMMANDS = ["", "ui", "rerank", "compare", "export", "data"]
ACTIONS = ["data list", "data pull", "data push", "data describe"]


@pytest.mark.parametrize("command", [*COMMANDS, *ACTIONS])
def test_help_fits_80_columns_and_explains_every_option(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        run(*command.split(), "--help")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    # The help of a long option is in the next line.
    without_help = re.compile(r"  --[\w-]+( [A-Z,]+| {.*})?")
    for line, following in itertools.pairwise([*lines, ""]):
        assert not without_help.fullmatch(line) or following.startswith(" " * 20), line


def test_a_request_with_too_many_candidates_is_an_error(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"user_ctx": "a", "candidates": ["It"] * 10_001}))
    code, out, err = run("rerank", "--input", str(path))
    assert (code, out) == (2, "")
    assert (
        err == f"reranker: {path}: candidates: 10001 are more than 10000; send several requests.\n"
    )


def test_input_that_is_not_utf8_is_an_error_with_the_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes("user_ctx,book_id\na,1\né,2\n".encode("latin-1"))
    assert "r.csv, line 3: not UTF-8 (byte 0xe9)" in run("rerank", "--input", str(path))[2]


def test_input_above_the_size_limit_is_an_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank, "MAX_BYTES", 2**20)
    path = tmp_path / "r.json"
    path.write_bytes(b" " * (2**20 + 1))
    assert "r.json: more than 1 MiB" in run("rerank", "--input", str(path))[2]


def test_ui_serves_the_named_store_or_the_default(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str, int]] = []
    monkeypatch.setattr(
        "reranker.cli.ui.serve", lambda uri, *, host, port: calls.append((uri, host, port)) or 0
    )
    monkeypatch.setattr("reranker.tracking.store.default_uri", lambda: "sqlite:////default.db")
    assert run("ui")[0] == run("ui", "--port", "81", "--tracking-uri", "sqlite:////x.db")[0] == 0
    assert calls == [
        ("sqlite:////default.db", "127.0.0.1", 5000),
        ("sqlite:////x.db", "127.0.0.1", 81),
    ]


def test_ui_does_not_serve_other_machines(run: Run, tmp_path: Path) -> None:
    code, out, err = run(
        "ui", "--host", "0.0.0.0", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"
    )
    assert (code, out) == (2, "")
    assert err.startswith("reranker: host='0.0.0.0' is not a loopback address")
    assert list(tmp_path.iterdir()) == []


def test_the_book_ids_in_the_readme_are_books_of_the_demo_data() -> None:
    [line] = re.findall(
        r"^\.venv/bin/reranker (rerank --history .*?) +#",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    args = main._parser().parse_args(shlex.split(line))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        works = books.build(from_hydra(compose("config")).data.world)
    ids = [*args.history, *args.candidate_ids]
    assert len(set(ids)) == 4
    assert set(ids) <= set(works.book_id)


def test_help_does_not_import_heavy_packages() -> None:
    show = "print({'mlflow', 'torch', 'pandas'} & set(sys.modules))"
    code = f"import sys; from reranker.cli import main; main._parser().format_help(); {show}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
