"""The command `reranker`: what goes in, what is printed, and what is refused."""

from __future__ import annotations

import io
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
    """A score that arithmetic gives: the length of the candidate, and -1 for each query that is not a context."""
    return np.array(
        [len(c) - (q == "") for q, c in zip(queries, candidates, strict=True)], dtype=np.float32
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("rerank", ...)` with a model that scores by length: exit code, stdout, stderr."""
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


def ranked(*books: dict[str, Any]) -> dict[str, Any]:
    return {"ranked": [{"rank": i, **book} for i, book in enumerate(books, start=1)]}


def test_a_context_and_candidates_on_the_command_line(run: Run) -> None:
    args = (
        "--user-ctx",
        "Likes: It.",
        "--candidate",
        "It",
        "--candidate",
        "Ulysses",
        "--format",
        "json",
    )
    code, out, err = run("rerank", *args)
    texts = [{"book_id": None, "score": float(len(t)), "text": t} for t in ("Ulysses", "It")]
    assert (code, json.loads(out), err) == (0, ranked(*texts), "")


def test_the_variant_that_is_named_is_the_one_that_ranks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    model = Reranker.load(rerank.MODEL)
    monkeypatch.setattr(
        Reranker, "load", lambda uri, *, tracking_uri, variant: asked.append(variant) or model
    )
    line = ("rerank", "--user-ctx", "Likes: Dune", "--candidate-ids", "1")
    assert run(*line)[0] == run(*line, "--variant", "int8")[0] == 0
    assert asked == [None, "int8"]


def test_a_history_and_ids_on_the_command_line(run: Run) -> None:
    code, out, _ = run(
        "rerank",
        "--history",
        "1,2",
        "--ratings",
        "5,3.5",
        "--candidate-ids",
        "1,2",
        "--format",
        "json",
    )
    assert (code, json.loads(out)) == (0, ranked(EMMA, DUNE))


def test_one_json_object_gives_one_object(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(
        json.dumps(
            {"user_ctx": "Likes: Dune.", "candidates": ["Émile", 1, {"book_id": "x", "text": "It"}]}
        )
    )
    code, out, _ = run("rerank", "--input", str(path), "--format", "json")
    emile = {"book_id": None, "score": 5.0, "text": "Émile"}
    assert (code, json.loads(out)) == (
        0,
        ranked(emile, DUNE, {"book_id": "x", "score": 2.0, "text": "It"}),
    )


def test_a_json_list_on_stdin_gives_a_list(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [
        {"history": [1], "ratings": [4], "candidates": [1, 2]},
        {"user_ctx": "Likes: Emma.", "candidates": [1]},
    ]
    data = b"\xef\xbb\xbf  " + json.dumps(requests).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code, out, _ = run("rerank", "--input", "-", "--format", "json")
    assert (code, json.loads(out)) == (0, [ranked(EMMA, DUNE), ranked(DUNE)])


def test_csv_rows_are_grouped_by_user_in_the_order_they_came(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        "user_id,user_ctx,book_id,book_text\n"
        'ann,Likes: Dune.,1,\nbob,Likes: Dune.,9,"It, by S. King"\nann,Likes: Dune.,2,\n'
    )
    code, out, _ = run("rerank", "--input", str(path), "--format", "json")
    it = {"book_id": 9, "score": 14.0, "text": "It, by S. King"}
    assert (code, json.loads(out)) == (
        0,
        [{"user_id": "ann", **ranked(EMMA, DUNE)}, {"user_id": "bob", **ranked(it)}],
    )


def test_csv_without_users_is_grouped_by_context_and_keeps_ids_that_are_not_numbers(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "pairs"
    path.write_text(
        "book_text,book_id,user_ctx\nIt,a1,Likes: X.\nEmma,2,Likes: X.\nIt,2,Likes: Y.\n"
    )
    code, out, _ = run("rerank", "--input", str(path), "--format", "json")
    it, emma = {"score": 2.0, "text": "It"}, {"book_id": "2", "score": 4.0, "text": "Emma"}
    assert code == 0
    assert json.loads(out) == [
        ranked(emma, {"book_id": "a1", **it}),
        ranked({"book_id": "2", **it}),
    ]


def test_the_table_shows_ranks_scores_and_texts_as_they_are(run: Run) -> None:
    code, out, _ = run(
        "rerank", "--user-ctx", "a", "--candidate", "[red]It\x1b[31m", "--candidate-ids", "1,2"
    )
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in out.splitlines()
        if line.startswith("│")
    ]
    assert code == 0
    assert rows == [
        ["1", "2", "18.0000", "Emma, by J. Austen"],
        ["2", "", "12.0000", "[red]It [31m"],
        ["3", "1", "4.0000", "Dune"],
    ]


def test_a_long_text_leaves_ranks_ids_and_scores_readable(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = run(
        "rerank", "--user-ctx", "a", "--candidate", "long " * 100, "--candidate-ids", "1"
    )
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in out.splitlines()
        if line.startswith("│")
    ]
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
            "r.json is of type int; give an object of user_ctx, history, ratings, timestamps, candidates",
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
        ("r.csv", "user_ctx,book_id\na,1\na\n", "r.csv, line 3: not 2 values"),
        ("r.csv", "user_ctx,book_id\na,1,b\n", "r.csv, line 2: not 2 values"),
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
            "r.csv, line 3: user_id 'u' has another user_ctx",
        ),
        (
            "r.csv",
            "user_ctx,book_id\na,x\n",
            "r.csv, user from line 2: candidates[0].text is missing; book_id='x'",
        ),
    ],
)
def test_bad_input_names_file_place_and_field(
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
        (("--input", "r.json", "--user-ctx", "a"), "--input holds whole requests"),
        (("--input", "no/such.json"), "no/such.json: cannot be read (No such file or directory)"),
        (("--input", "."), ".: cannot be read (Is a directory)"),
        (("--user-ctx", "a"), "command line: candidates is empty"),
        (("--candidate", "a"), "command line: user_ctx, history: give exactly one, got neither"),
        (
            (
                "--user-ctx",
                "a",
                "--candidate",
                "b",
                "--model",
                "models:/x/1",
                "--tracking-uri",
                "sqlite:///y",
            ),
            "not in sqlite:///y",
        ),
    ],
)
def test_a_bad_command_line_says_what_to_give(
    run: Run, args: tuple[str, ...], message: str
) -> None:
    code, out, err = run("rerank", *args)
    assert (code, out) == (2, "")
    assert message in err


def test_ids_that_are_not_numbers_are_a_usage_error(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("rerank", "--history", "1,x", "--candidate-ids", "1")
    assert "argument --history: invalid list of int value: '1,x'" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("rerank", "--user-ctx", "a", "--candidate", "b", "--top", "3")
    assert "unrecognized arguments: --top 3" in capsys.readouterr().err


def test_more_candidates_than_a_request_may_hold_are_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"user_ctx": "a", "candidates": ["It"] * 10_001}))
    code, out, err = run("rerank", "--input", str(path))
    assert (code, out) == (2, "")
    assert (
        err == f"reranker: {path}: candidates: 10001 are more than 10000; send several requests.\n"
    )


def test_input_that_is_not_utf8_names_the_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes("user_ctx,book_id\na,1\né,2\n".encode("latin-1"))
    assert "r.csv, line 3: not UTF-8 (byte 0xe9)" in run("rerank", "--input", str(path))[2]


def test_input_of_any_size_is_not_read_to_its_end(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank, "MAX_BYTES", 2**20)
    path = tmp_path / "r.json"
    path.write_bytes(b" " * (2**20 + 1))
    assert "r.json: more than 1 MiB" in run("rerank", "--input", str(path))[2]


def test_ui_serves_the_store_that_was_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_ui_is_not_opened_to_other_machines(run: Run, tmp_path: Path) -> None:
    code, out, err = run(
        "ui", "--host", "0.0.0.0", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"
    )
    assert (code, out) == (2, "")
    assert err.startswith("reranker: host='0.0.0.0' is not a loopback address")
    assert list(tmp_path.iterdir()) == []


def test_the_readmes_ids_are_books_of_the_world_that_a_first_run_makes() -> None:
    [line] = re.findall(
        r"^\.venv/bin/reranker (rerank --history .*?) +#",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    given = main._parser().parse_args(shlex.split(line))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        works = books.build(from_hydra(compose("config")).data.world)
    ids = [*given.history, *given.candidate_ids]
    assert len(set(ids)) == 4
    assert set(ids) <= set(works.book_id)


def test_help_loads_nothing_heavy() -> None:
    show = "print({'mlflow', 'torch', 'pandas'} & set(sys.modules) or 'nothing heavy')"
    code = f"import sys; from reranker.cli import main; main._parser().format_help(); {show}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "nothing heavy\n"
