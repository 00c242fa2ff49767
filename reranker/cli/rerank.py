"""`reranker rerank`: read requests, rank their candidates and print the result."""

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

from reranker.cli import options
from reranker.errors import RequestError
from reranker.terminal import visible

if TYPE_CHECKING:
    from reranker.serving.reranker import Ranked, Reranker

MAX_BYTES = 64 * 2**20  # 10,000 candidates of 6,500 characters; the input is read into memory
FIELDS = ("user_ctx", "history", "ratings", "timestamps", "candidates", "top_k")
COLUMNS = ("user_id", "user_ctx", "book_id", "book_text")
MODEL = "models:/book-reranker@champion"
DESCRIPTION = """Rank candidate books for a user. Give one request by options, or any number of
requests by --input."""
EPILOG = """JSON input is a request or a list of requests. A request is an object with
  user_ctx or history    the context as text, or ids of books that were rated
  ratings, timestamps    optional, one for each book of history; timestamps
                         are Unix seconds
  candidates             texts, book ids, or objects with book_id and text
  top_k                  optional: print only the best top_k candidates
For example: {"user_ctx": "...", "candidates": ["...", 2]}

CSV input has a row for each candidate, with the columns user_ctx, book_id and
optionally user_id and book_text. Books outside the catalogue need book_text.
Ids are integers if all of them are written as integers without leading zeros;
otherwise all ids stay texts, such as 0061120081, and every row needs book_text.
"""


@dataclass(frozen=True)
class Request:
    """The arguments of one `Reranker.rerank` call.

    Attributes:
        where: The origin of the request, for error messages.
        fields: The arguments by name.
        user_id: The user of a CSV row, printed with the result.
    """

    where: str
    fields: dict[str, Any]
    user_id: str | None = None


def add_parser(commands: Any) -> None:
    """Add the subcommand `rerank`."""
    parser = commands.add_parser(
        "rerank",
        parents=[options.tracking_uri(), options.output_format()],
        help="rank candidate books for a user",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    numbers = options.number_list
    parser.add_argument(
        "--model",
        default=MODEL,
        metavar="URI",
        help="model URI, or the folder of a bundle (default: %(default)s)",
    )
    options.add_variant(
        parser, "score with an exported variant (default: the model's weights)", required=False
    )
    parser.add_argument("--input", metavar="FILE", help="JSON or CSV file; - reads stdin")
    parser.add_argument("--user-ctx", metavar="TEXT", help="user context as text")
    parser.add_argument(
        "--history", type=numbers(int), metavar="ID,ID", help="ids of books that the user rated"
    )
    parser.add_argument(
        "--ratings",
        type=numbers(float),
        metavar="R,R",
        help="ratings of the books of --history (default: all positive)",
    )
    parser.add_argument(
        "--candidate",
        action="append",
        default=[],
        metavar="TEXT",
        help="text of a candidate; can be repeated",
    )
    parser.add_argument(
        "--candidate-ids",
        type=numbers(int),
        default=[],
        metavar="ID,ID",
        help="book ids of candidates",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="N",
        help="print only the best N candidates of each request (default: all)",
    )


def _load(args: argparse.Namespace) -> Reranker:
    from reranker.serving.reranker import Reranker

    if (folder := Path(args.model)).is_dir():
        return Reranker.from_folder(folder, variant=args.variant)
    return Reranker.load(args.model, tracking_uri=args.tracking_uri, variant=args.variant)


def run(args: argparse.Namespace) -> int:
    """Rank the requests, print the result and return exit code 0.

    The caller prints a RerankerError.
    """
    requests, several = _read_requests(args)
    reranker = _load(args)
    ranked = []
    top_k = {} if args.top_k is None else {"top_k": args.top_k}
    for request in requests:  # nothing is printed if one of them is invalid
        try:
            ranked.append(reranker.rerank(**request.fields | top_k))
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
        title = visible(request.user_id or request.where) if several else None
        table = Table(title=title, expand=True)
        for name in ("rank", "book", "score"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)  # the remaining width
        for r in result:
            book = "" if r.book_id is None else visible(str(r.book_id))
            table.add_row(str(r.rank), book, f"{r.score:.4f}", visible(r.text))
        console.print(table)


def _read_requests(args: argparse.Namespace) -> tuple[list[Request], bool]:
    """Return the requests, and whether they are printed as a list."""
    user = {"user_ctx": args.user_ctx, "history": args.history, "ratings": args.ratings}
    candidates = [*args.candidate, *args.candidate_ids]
    has_options = any(v is not None for v in user.values()) or bool(candidates)
    if args.input is None:
        if not has_options:
            raise RequestError(
                "nothing to rank: give --input FILE, or --user-ctx (or --history) and --candidate."
            )
        return [Request("command line", {**user, "candidates": candidates})], False
    if has_options:
        raise RequestError(
            "--input contains complete requests; leave out --user-ctx, --history, --ratings and "
            "--candidate*."
        )
    name = "stdin" if args.input == "-" else args.input
    text = _read_text(args.input, name)
    suffix = Path(args.input).suffix.lower()
    if suffix == ".json" or (suffix != ".csv" and text.lstrip()[:1] in ("{", "[")):
        return _from_json(text, name)
    return _from_csv(text, name), True


def _read_text(path: str, name: str) -> str:
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
            f"{name}, line {line}: not UTF-8 (byte {data[error.start]:#04x}); convert the file."
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
    places = [f"{name}, request {i}" if several else name for i in range(len(items))]
    return [_from_object(v, place) for v, place in zip(items, places, strict=True)], several


def _from_object(value: object, where: str) -> Request:
    if not isinstance(value, Mapping):
        raise RequestError(
            f"{where} is of type {type(value).__name__}; give an object with {', '.join(FIELDS)}."
        )
    if unknown := [key for key in value if key not in FIELDS]:
        raise RequestError(
            f"{where}: {unknown[0]!r} is unknown; a request has {', '.join(FIELDS)}."
        )
    if "candidates" not in value:
        raise RequestError(
            f"{where}: candidates is missing; give texts, book ids, or objects with book_id and "
            "text."
        )
    return Request(where, {"user_ctx": None, **value})


def _from_csv(text: str, name: str) -> list[Request]:
    rows = _csv_rows(text, name)
    # An id with a leading zero, such as an ISBN, makes all ids of the file texts: as integers
    # 0001 and 1 would be the same id.
    ids_are_numbers = all(re.fullmatch("0|[1-9][0-9]{0,17}", row["book_id"]) for _, row in rows)
    groups: dict[str, Request] = {}
    for line, row in rows:
        user, user_ctx = row.get("user_id"), row["user_ctx"]
        fields = {"user_ctx": user_ctx, "candidates": []}
        new = Request(f"{name}, user from line {line}", fields, user)
        request = groups.setdefault(user or user_ctx, new)
        if request.fields["user_ctx"] != user_ctx:
            raise RequestError(
                f"{name}, line {line}: user_id {user!r} has a different user_ctx than in earlier "
                "rows; give the same in every row."
            )
        book_id = int(row["book_id"]) if ids_are_numbers else row["book_id"]
        candidate = {"book_id": book_id, "text": row.get("book_text") or None}
        request.fields["candidates"].append(candidate)
    return list(groups.values())


def _csv_rows(text: str, name: str) -> list[tuple[int, dict[str, str]]]:
    """Return the line number and the values of every row.

    Each row has all columns of the header; only book_text may be blank.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        header = list(reader.fieldnames or [])
        _check_header(header, f"{name}, line 1")
        for row in reader:
            _check_row(row, header, f"{name}, line {reader.line_num}")
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise RequestError(f"{name}, line {reader.reader.line_num}: not CSV ({error}).") from error
    if not rows:
        raise RequestError(f"{name}: no rows below the header; give a row for each candidate.")
    return rows


def _check_header(header: list[str], where: str) -> None:
    known = {"user_ctx", "book_id"} <= set(header) <= set(COLUMNS)
    if not known or len(set(header)) < len(header):
        raise RequestError(
            f"{where}: columns are {', '.join(header) or 'missing'}; expected user_ctx, book_id "
            "and optionally user_id and book_text."
        )


def _check_row(row: dict[str, Any], header: list[str], where: str) -> None:
    for column in header:
        if None in row or row[column] is None:
            raise RequestError(
                f"{where}: expected {len(header)} values; quote texts that contain commas."
            )
        if not row[column].strip() and column != "book_text":
            raise RequestError(f"{where}: {column} is blank.")
