"""Build pairs with DuckDB: lists per user, texts as enums, streamed to parquet."""

from __future__ import annotations

from collections.abc import Callable

import duckdb

from sides.task import SLICE, Task

# CPU seconds of the formulations that were tried, including reading and writing, with 1e6 ratings
# (819,280 pairs) and 2 threads:
#   1.0  this version
#   1.2  a UNION ALL of positives and negatives instead of one unnest (it reads `drawn` twice)
#   2.0  draws as rows, DISTINCT by GROUP BY, ANTI JOIN of the ratings, the first k by
#        row_number(); texts as strings
#   2.2  lists, texts as strings: the writer hashes each text of each row (row groups of 122,880)
#   4.3  the same with row groups of 1,000,000 rows and a matching dictionary limit: 7.6 MB, but
#        1.0 GB of memory
# The draw takes .20 in this version; .20 with random() instead of hash(); .23 with seen books and
# draws in one list; .27 to .40 as rows with only GROUP BY and ANTI JOIN; 1.1 by ranks among unseen
# books, shifted by list_filter or by ASOF JOIN. ALTER COLUMN to an enum takes .9; enums that are
# created from the files and cast while reading take .25. list_distinct does not keep the order of
# the draws, so the first k of its result would favour some books; FIRST_PLACES keeps the order.
#
# A scan is parallel over row groups. With the default of 122,880 rows all users of a slice would be
# in one group.
SMALL_ROW_GROUPS = "ATTACH ':memory:' AS small (ROW_GROUP_SIZE 4096); USE small"
BOOKS = """
CREATE TYPE book_text AS ENUM (SELECT DISTINCT book_text FROM '{world}/books.parquet');
CREATE TABLE books AS
  SELECT file_row_number::INT AS book, book_id, book_text::book_text AS book_text
  FROM read_parquet('{world}/books.parquet', file_row_number = true);
"""
USERS = """
CREATE TABLE contexts AS
  SELECT c."user", u.user_id, c.user_ctx FROM '{world}/contexts.parquet' c
  JOIN read_parquet('{world}/users.parquet', file_row_number = true) u
    ON u.file_row_number = c."user"
  WHERE u.split = 'train' AND c."user" >= {first} AND c."user" < {last};
CREATE TYPE user_id AS ENUM (SELECT user_id FROM contexts);
CREATE TYPE user_ctx AS ENUM (SELECT DISTINCT user_ctx FROM contexts);
CREATE TABLE users AS
  SELECT c.user_id::user_id AS user_id, c.user_ctx::user_ctx AS user_ctx, h.*,
    {neg_ratio} * len(liked) AS k
  FROM contexts c JOIN (
    SELECT "user", list(book) AS seen,
      list(book) FILTER (is_target AND rating >= {positive_rating}) AS liked
    FROM '{world}/histories.parquet' WHERE "user" >= {first} AND "user" < {last}
    GROUP BY "user" HAVING liked IS NOT NULL
  ) h USING ("user");
"""
# Draws are uniform and independent, so a user's first k new and unseen books are a uniform subset
# of the unseen books.
DRAWS = """
list_filter(
  list_transform(
    range(k + 2 + k // 16), lambda i: (hash("user", i, {seed}, {turn}) % {n_books})::INT
  ),
  lambda b: NOT list_contains(seen, b)
)
"""
FIRST_PLACES = "list_filter(l, lambda b, i: list_position(l, b) = i) AS unliked"
DRAWN = """
CREATE TABLE drawn AS
  SELECT * EXCLUDE l, {first_places} FROM (SELECT *, {draws} AS l FROM users);
"""
SHORT = "SELECT count(*) FROM drawn WHERE len(unliked) < k"
TOP_UP = """
CREATE OR REPLACE TABLE drawn AS
  SELECT * FROM drawn WHERE len(unliked) >= k
  UNION ALL SELECT * EXCLUDE l, {first_places}
  FROM (
    SELECT * EXCLUDE unliked, list_concat(unliked, {draws}) AS l
    FROM drawn WHERE len(unliked) < k
  );
"""
WRITE = """
COPY (
  SELECT user_id, user_ctx, book_id, book_text, label FROM (
    SELECT user_id, user_ctx, unnest(unliked[:k] || liked) AS book,
      unnest(list_resize(list_resize([]::TINYINT[], k, 0), k + len(liked), 1)) AS label FROM drawn
  ) JOIN books USING (book)
) TO '{out}/pairs-{first}.parquet' (
  FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 500000,
  STRING_DICTIONARY_PAGE_SIZE_LIMIT 67108864
)
"""
DROP = """
DROP TABLE drawn; DROP TABLE users; DROP TABLE contexts; DROP TYPE user_id; DROP TYPE user_ctx;
"""


def prepare(task: Task) -> Callable[[], None]:
    """Return the measured function, which reads the world's files and writes part files."""

    def work() -> None:
        names: dict[str, object] = dict(vars(task))
        with duckdb.connect(config={"threads": 2, "preserve_insertion_order": "false"}) as db:
            db.execute(SMALL_ROW_GROUPS)
            db.execute(BOOKS.format(**names))
            (names["n_books"],) = db.execute("SELECT count(*) FROM books").fetchone()
            count = "SELECT count(*) FROM '{world}/users.parquet'"
            (n_users,) = db.execute(count.format(**names)).fetchone()
            for first in range(0, n_users, SLICE):
                _write_slice(db, names | {"first": first, "last": first + SLICE})

    return work


def _write_slice(db: duckdb.DuckDBPyConnection, names: dict[str, object]) -> None:
    db.execute(USERS.format(**names))
    db.execute(_draw(DRAWN, 0, names))
    turn = 0
    while db.execute(SHORT).fetchone()[0]:
        turn += 1
        db.execute(_draw(TOP_UP, turn, names))
    db.execute(WRITE.format(**names))
    db.execute(DROP)


def _draw(statement: str, turn: int, names: dict[str, object]) -> str:
    return statement.format(draws=DRAWS.format(turn=turn, **names), first_places=FIRST_PLACES)
