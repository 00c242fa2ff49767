"""`reranker rerank`: read requests, rank the candidates and print them."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reranker.cli import export
from reranker.errors import RequestError
from reranker.terminal import visible

if TYPE_CHECKING:
    from reranker.serving.reranker import Ranked

MAX_BYTES = 64 * 2**20  # 10,000 candidates of 6,500 characters; the whole input stays in memory


FIELDS = ("user_ctx", "history", "ratings", "timestamps", "candidates")


COLUMNS = ("user_id", "user_ctx", "book_id", "book_text")


EPILOG = """input, JSON: {"user_ctx": "...", "candidates": ["...", 2, {"book_id": 3, "text": "..."}]} or a list of such;
  in place of user_ctx: "history": [1, 2] and, where known, "ratings": [5, 3] and "timestamps" (Unix seconds)
input, CSV: columns user_ctx, book_id and, as needed, book_text (of other books) and user_id"""


MODEL = "models:/book-reranker@champion"


@dataclass(frozen=True)
class Request:
    """The arguments of one `Reranker.rerank`, and where they came from."""

    where: str
    fields: dict[str, Any]
    user_id: str | None = None


def add_parser(commands: Any, store: argparse.ArgumentParser) -> None:
    """Add the subcommand `rerank`."""
    rerank = commands.add_parser(
        "rerank",
        parents=[store],
        help="rank candidate books for a user",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rerank.add_argument(
        "--model", default=MODEL, metavar="URI", help="MLflow model URI (default: %(default)s)"
    )
    rerank.add_argument("--input", metavar="FILE", help="requests as JSON or CSV; - reads stdin")
    rerank.add_argument("--user-ctx", metavar="TEXT", help="the user context as text")
    rerank.add_argument(
        "--history",
        type=_numbers(int),
        metavar="ID,ID",
        help="ids of books that the user has rated",
    )
    rerank.add_argument(
        "--ratings", type=_numbers(float), metavar="R,R", help="their ratings (default: all liked)"
    )
    rerank.add_argument(
        "--candidate", action="append", default=[], metavar="TEXT", help="can be repeated"
    )
    rerank.add_argument("--candidate-ids", type=_numbers(int), default=[], metavar="ID,ID")
    rerank.add_argument("--format", choices=("table", "json"), default="table")
    export.add_variant(rerank, required=False)


def _numbers(kind: type) -> Any:
    def parse(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",")]

    parse.__name__ = (
        f"list of {kind.__name__}"  # argparse quotes it: "invalid list of int value: '1,x'"
    )
    return parse


def run(args: argparse.Namespace) -> int:
    requests, several = _requests(args)
    from reranker.serving.reranker import Reranker

    reranker = Reranker.load(args.model, tracking_uri=args.tracking_uri, variant=args.variant)
    ranked = []
    for request in requests:  # all of them before the first line is printed
        try:
            ranked.append(reranker.rerank(**request.fields))
        except RequestError as error:
            raise RequestError(f"{request.where}: {error}") from error
    if args.format == "json":
        rows = [_plain(request, result) for request, result in zip(requests, ranked, strict=True)]
        print(json.dumps(rows if several else rows[0], ensure_ascii=False, indent=1))
    else:
        _print_tables(requests, ranked, several)
    return 0


def _plain(request: Request, ranked: list[Ranked]) -> dict[str, Any]:
    user = {} if request.user_id is None else {"user_id": request.user_id}
    return {**user, "ranked": [asdict(r) for r in ranked]}


def _print_tables(requests: list[Request], ranked: list[list[Ranked]], several: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, highlight=False)
    for request, result in zip(requests, ranked, strict=True):
        table = Table(
            title=visible(request.user_id or request.where) if several else None, expand=True
        )
        for name in ("rank", "book", "score"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column(
            "text", no_wrap=True, overflow="ellipsis", ratio=1
        )  # what the others leave of the line
        for r in result:
            book = "" if r.book_id is None else visible(str(r.book_id))
            table.add_row(str(r.rank), book, f"{r.score:.4f}", visible(r.text))
        console.print(table)


def _requests(args: argparse.Namespace) -> tuple[list[Request], bool]:
    """The requests, and whether they came as a list."""
    line = {"user_ctx": args.user_ctx, "history": args.history, "ratings": args.ratings}
    candidates = [*args.candidate, *args.candidate_ids]
    on_line = any(v is not None for v in line.values()) or bool(candidates)
    if args.input is None:
        if not on_line:
            raise RequestError(
                "nothing to rank: give --input FILE, or --user-ctx (or --history) and --candidate."
            )
        return [Request("command line", {**line, "candidates": candidates})], False
    if on_line:
        raise RequestError(
            "--input holds whole requests; leave out --user-ctx, --history, --ratings and --candidate*."
        )
    name = "stdin" if args.input == "-" else args.input
    text = _read(args.input, name)
    suffix = Path(args.input).suffix.lower()
    if suffix == ".json" or (suffix != ".csv" and text.lstrip()[:1] in ("{", "[")):
        return _from_json(text, name)
    return _from_csv(text, name), True


def _read(path: str, name: str) -> str:
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{name}: cannot be read ({error.strerror}).") from error
    if len(data) > MAX_BYTES:
        raise RequestError(
            f"{name}: more than {MAX_BYTES // 2**20} MiB; split it into several files."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RequestError(
            f"{name}, line {line}: not UTF-8 (byte {data[error.start]:#04x}); convert it."
        ) from error


def _from_json(text: str, name: str) -> tuple[list[Request], bool]:
    def refuse(constant: str) -> None:
        raise RequestError(f"{name}: {constant} is not JSON; give finite numbers.")

    try:
        value = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise RequestError(
            f"{name}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})."
        ) from error
    except (RecursionError, ValueError) as error:  # ValueError: an integer of more than 4300 digits
        raise RequestError(
            f"{name}: nested too deeply, or a number is too long; give requests as in --help."
        ) from error
    several = isinstance(value, list)
    items = value if several else [value]
    if not items:
        raise RequestError(f"{name}: an empty list; give at least one request.")
    return [
        _from_object(v, f"{name}, request {i}" if several else name) for i, v in enumerate(items)
    ], several


def _from_object(value: object, where: str) -> Request:
    if not isinstance(value, Mapping):
        raise RequestError(
            f"{where} is of type {type(value).__name__}; give an object of {', '.join(FIELDS)}."
        )
    if unknown := [key for key in value if key not in FIELDS]:
        raise RequestError(
            f"{where}: {unknown[0]!r} is unknown; a request has {', '.join(FIELDS)}."
        )
    if "candidates" not in value:
        raise RequestError(
            f"{where}: candidates is missing; give texts, book ids, or objects of book_id and text."
        )
    return Request(where, {"user_ctx": None, **value})


def _from_csv(text: str, name: str) -> list[Request]:
    rows = _csv_rows(text, name)
    ids_are_numbers = all(re.fullmatch("[0-9]{1,18}", row["book_id"]) for _, row in rows)
    groups: dict[str, Request] = {}
    for line, row in rows:
        user = row.get("user_id")
        request = groups.setdefault(
            user or row["user_ctx"],
            Request(
                f"{name}, user from line {line}",
                {"user_ctx": row["user_ctx"], "candidates": []},
                user,
            ),
        )
        if request.fields["user_ctx"] != row["user_ctx"]:
            raise RequestError(
                f"{name}, line {line}: user_id {user!r} has another user_ctx than before; give one."
            )
        book_id = int(row["book_id"]) if ids_are_numbers else row["book_id"]
        request.fields["candidates"].append(
            {"book_id": book_id, "text": row.get("book_text") or None}
        )
    return list(groups.values())


def _csv_rows(text: str, name: str) -> list[tuple[int, dict[str, str]]]:
    """Line number and values of every row; each row has all columns of the header, and none but book_text is blank."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        header = list(reader.fieldnames or [])
        if not {"user_ctx", "book_id"} <= set(header) <= set(COLUMNS) or len(set(header)) < len(
            header
        ):
            expected = "user_ctx, book_id and, as needed, book_text and user_id"
            raise RequestError(
                f"{name}, line 1: columns are {', '.join(header) or 'missing'}; expected {expected}."
            )
        for row in reader:
            for column in header:
                if None in row or row[column] is None:
                    raise RequestError(
                        f"{name}, line {reader.line_num}: not {len(header)} values; quote texts with commas."
                    )
                if not row[column].strip() and column != "book_text":
                    raise RequestError(f"{name}, line {reader.line_num}: {column} is blank.")
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise RequestError(f"{name}, line {reader.reader.line_num}: not CSV ({error}).") from error
    if not rows:
        raise RequestError(f"{name}: no rows below the header; give a row for each candidate.")
    return rows
