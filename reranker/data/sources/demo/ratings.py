"""Generate the demo world: synthetic books and users in the four raw tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION
from reranker.config import WorldConfig
from reranker.data.draws import FloatArray, IntArray, bits
from reranker.data.sources.demo import books
from reranker.data.sources.demo.books import Works, stream

# Version of the world; increase it if the same WorldConfig gives other files.
VERSION = 2

# Probabilities of one, two and three favourite genres.
N_FAVOURITES = (0.3, 0.4, 0.3)
# Affinity to books of the first, second and third favourite genre; it is 0 for all others.
STRENGTHS = (1.0, 0.9, 0.8)
# Weight of a book's second genre.
SECOND_AFFINITY = 0.3
# Added for books by a favourite author.
AUTHOR_AFFINITY = 0.5
# Log weight of a choice per unit of affinity. At taste 1, four fifths of choices are favourites.
SHARPNESS = 3.7
# Upper limit of taste for choices. Above it users read favourites only and weights exceed float32.
MAX_TASTE = 10.0
# Limit of the log range of popularity weights, for float32 too.
MAX_LOG_RANGE = 60.0
RATING_MEAN = 3.6
# Stars per unit of affinity.
SPREAD = 1.0
MIN_READ = 4
# Probability that a user read the second edition.
OTHER_EDITION = 0.3
# Probability that a user rated both editions of a work that has two.
BOTH_EDITIONS = 0.05
# Seconds.
YEAR = 31_557_600
# Users start between 2010 and 2014 and rate for one to five years.
START, START_SPAN = 1_262_304_000, 4 * YEAR
SPAN = (YEAR, 5 * YEAR)

# Users in one row group and one random stream; other values give another world.
USERS_PER_CHUNK = 4096
# Users x works that are drawn at once: 8 MiB. Other values give the same world.
CELLS_PER_BLOCK = 1 << 21

INTERACTIONS = pa.schema(
    [
        ("user_id", pa.string()),
        ("book_id", pa.int64()),
        ("rating", pa.int64()),
        ("timestamp", pa.int64()),
    ]
)


@dataclass(frozen=True)
class _Users:
    """The users of one chunk.

    Attributes:
        taste: (n, n_genres) affinity to each genre.
        authors: (n, 2) favourite authors, both of the user's first favourite genre.
        n_read: (n,) number of works in the history.
        start: (n,) Unix time of the first possible rating.
        span: (n,) seconds from the first to the last possible rating.
    """

    taste: FloatArray
    authors: IntArray
    n_read: IntArray
    start: IntArray
    span: IntArray


def generate(cfg: WorldConfig, folder: Path) -> dict[str, object]:
    """Write the four raw tables of a synthetic world into `folder`.

    A user reads distinct works, chosen with weight
    popularity^popularity_bias * exp(taste * SHARPNESS * affinity), and gives the rating
    round(clip(RATING_MEAN + taste * SPREAD * (affinity - mean) + noise, 1, 5)), where mean is the
    average affinity of the works that the user reads. Affinity depends on genres and authors;
    popularity and timestamps are independent of both. At taste 0 the history of a user therefore
    contains no information about the user. The first users do not change if n_users is increased.

    Args:
        cfg: The world. Each history has at least MIN_READ and at most n_books / 4 works.
        folder: Existing folder for reduced_books, reduced_interactions, new_authors and
            book_texts_reduced (.parquet).

    Returns:
        n_books (works), n_editions (additional book ids), n_users, and n_ratings (rows; a few
        users rate both editions of a work).

    Source: weighted sampling without replacement by exponential keys, Efraimidis & Spirakis 2006.

    Example:
        >>> counts = generate(WorldConfig(n_books=100, n_users=20), Path("."))  # doctest: +SKIP
    """
    works = books.build(cfg)
    books.write(cfg, works, folder)
    n_ratings = 0
    path = folder / "reduced_interactions.parquet"
    with pq.ParquetWriter(path, INTERACTIONS, compression=COMPRESSION) as writer:
        for table in _interactions(cfg, works):
            writer.write_table(table)
            n_ratings += table.num_rows
    n_editions = int((works.other_id >= 0).sum())
    return {
        "n_books": cfg.n_books,
        "n_editions": n_editions,
        "n_users": cfg.n_users,
        "n_ratings": n_ratings,
    }


def _interactions(cfg: WorldConfig, works: Works) -> Iterator[pa.Table]:
    for chunk, first in enumerate(range(0, cfg.n_users, USERS_PER_CHUNK)):
        n = min(USERS_PER_CHUNK, cfg.n_users - first)
        users = _users(cfg, works, chunk, n=n)
        user, work = _choose(cfg, works, users, chunk=chunk)
        codes = bits(cfg.seed, "demo user", np.arange(first, first + n)).tolist()
        ids = pa.array([f"{code:016x}" for code in codes])
        yield _rate(cfg, works, users, user=user, work=work, chunk=chunk, ids=ids)


def _users(cfg: WorldConfig, works: Works, chunk: int, *, n: int) -> _Users:
    """Return the first n users of a chunk.

    All users of the chunk are drawn, so that the first ones do not depend on n.
    """
    rng = stream(cfg, "readers", chunk)
    size, g = USERS_PER_CHUNK, works.n_genres
    gap = np.abs(np.arange(g)[:, None] - np.arange(g))
    first = rng.integers(g, size=size)
    # Genres near the first favourite get small keys, so they are likely to be favourites too.
    keys = rng.exponential(size=(size, g)) * 2.0 ** np.minimum(gap, g - gap)[first]
    keys[np.arange(size), first] = -1.0
    favourites = np.argsort(keys, axis=1)
    n_more = rng.choice(len(N_FAVOURITES), size, p=N_FAVOURITES)
    taste = np.zeros((size, g))
    for i, strength in enumerate(STRENGTHS):
        has = np.flatnonzero(n_more >= i)
        taste[has, favourites[has, i]] = strength
    # The authors of a genre are the code of the genre and every g-th code after it.
    n_authors = (works.n_authors - first + g - 1) // g
    one, two, start, span = rng.random((4, size))
    liked = (one * n_authors).astype(np.int64)
    other = (liked + 1 + (two * (n_authors - 1)).astype(np.int64)) % n_authors
    n_read = rng.geometric(1 / (cfg.mean_ratings - MIN_READ + 1), size) + MIN_READ - 1
    return _Users(
        taste=taste[:n],
        authors=(first[:, None] + g * np.stack([liked, other], axis=1))[:n],
        n_read=np.minimum(n_read, cfg.n_books // 4)[:n],
        start=START + (start[:n] * START_SPAN).astype(np.int64),
        span=SPAN[0] + (span[:n] * (SPAN[1] - SPAN[0])).astype(np.int64),
    )


def _affinity(users: _Users) -> FloatArray:
    """Return (n_users, n_kinds) affinity of every user to every kind of work, without authors."""
    n = len(users.taste)
    by_second = np.hstack([np.zeros((n, 1)), SECOND_AFFINITY * users.taste])
    return (users.taste[:, :, None] + by_second[:, None, :]).reshape(n, -1)


def _choose(
    cfg: WorldConfig, works: Works, users: _Users, *, chunk: int
) -> tuple[IntArray, IntArray]:
    """Return the user (index in the chunk) and the work of every choice.

    The works of a user are distinct. Each (user, work) gets an exponential key; a user's works are
    those with the smallest keys.
    """
    pull = SHARPNESS * min(cfg.taste, MAX_TASTE)
    log_weight = cfg.popularity_bias * works.log_popularity
    unpopular = np.exp(np.minimum(log_weight.max() - log_weight, MAX_LOG_RANGE)).astype(np.float32)
    # exp in float64, rounded to float32, gives the same values on all processors.
    scale = np.exp(-pull * _affinity(users)).astype(np.float32)
    author_scale = np.float32(np.exp(-pull * AUTHOR_AFFINITY))
    ends = np.cumsum(np.bincount(works.author))[:-1]
    by_author = np.split(np.argsort(works.author, kind="stable"), ends)
    kind, n_works = works.kind, len(works.genre)

    rng = stream(cfg, "choices", chunk)
    n_rows = max(1, CELLS_PER_BLOCK // n_works)
    chosen = []
    for a in range(0, len(scale), n_rows):
        keys = rng.standard_exponential((min(n_rows, len(scale) - a), n_works), dtype=np.float32)
        keys *= unpopular
        keys *= np.take(scale[a : a + n_rows], kind, axis=1)
        for row, authors in zip(keys, users.authors[a : a + n_rows], strict=True):
            for author in authors:
                row[by_author[author]] *= author_scale
        chosen.append(_smallest(keys, users.n_read[a : a + n_rows]))
    return np.repeat(np.arange(len(scale)), users.n_read), np.concatenate(chosen)


def _smallest(keys: FloatArray, n: IntArray) -> IntArray:
    """Return (n.sum(),) the columns of the n[i] smallest keys of each row i, smallest first."""
    most = int(n.max())
    columns = np.argpartition(keys, most - 1, axis=1)[:, :most]
    order = np.argsort(np.take_along_axis(keys, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)[np.arange(most) < n[:, None]]


def _rate(
    cfg: WorldConfig,
    works: Works,
    users: _Users,
    *,
    user: IntArray,
    work: IntArray,
    chunk: int,
    ids: pa.Array,
) -> pa.Table:
    """Return rows of the interactions table, sorted by user and time.

    Times are drawn independently of ratings and choices.
    """
    noise = stream(cfg, "noise", chunk).standard_normal((len(user), 2))
    time = stream(cfg, "times", chunk).random((len(user), 2))
    edition = stream(cfg, "editions", chunk).random((len(user), 2))
    by_favourite = (users.authors[user] == works.author[work][:, None]).any(axis=1)
    affinity = _affinity(users)[user, works.kind[work]] + AUTHOR_AFFINITY * by_favourite
    mean = np.bincount(user, affinity) / users.n_read
    expected = RATING_MEAN + cfg.taste * SPREAD * (affinity - mean[user])
    first, second = works.book_id[work], works.other_id[work]
    took_other = (second >= 0) & (edition[:, 0] < OTHER_EDITION)
    first, second = np.where(took_other, second, first), np.where(took_other, first, second)
    both = np.flatnonzero((second >= 0) & (edition[:, 1] < BOTH_EDITIONS))

    row = np.concatenate([np.arange(len(user)), both])
    noise = np.concatenate([noise[:, 0], noise[both, 1]])
    rating = np.clip(expected[row] + cfg.rating_noise * noise, 1.0, 5.0)
    time = np.concatenate([time[:, 0], time[both, 1]])
    order = np.lexsort((time, user[row]))
    owner = user[row][order]
    size = np.bincount(owner)
    # The position in the history is added to the time, so that no two ratings have the same second.
    position = np.arange(len(owner)) - (np.cumsum(size) - size)[owner]
    seconds = (time[order] * users.span[owner]).astype(np.int64)
    columns = {
        "user_id": ids.take(pa.array(owner)),
        "book_id": np.concatenate([first, second[both]])[order],
        "rating": np.rint(rating[order]).astype(np.int64),
        "timestamp": users.start[owner] + seconds + position,
    }
    return pa.table(columns, INTERACTIONS)
