"""Small raw tables that the tests write themselves, and a process that never reaches a hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("MLFLOW_TRACKING_URI", None)  # a developer's own store is not for tests
os.environ["NO_PROXY"] = os.environ["no_proxy"] = (
    "127.0.0.1,localhost"  # the hub and the pages of the tests
)

from reranker import config
from reranker.cache import Cache
from reranker.config import Config, DataConfig, TrackingConfig
from reranker.data import Contexts, Tables, build_contexts, load_tables
from reranker.model import Encoder
from reranker.model import load as load_encoder
from tests.helpers import chromium, hub

config.register()

GENRES: dict[str, list[str]] = yaml.safe_load(
    (config.ROOT / "conf/data/genres/goodreads.yaml").read_text()
)
SHELF = pa.struct([("count", pa.string()), ("name", pa.string())])
Rating = tuple[str, int, int]


def write_raw(
    folder: Path,
    ratings: Iterable[Sequence[object]],
    *,
    n_books: int = 40,
    titles: dict[int, str] | None = None,
    authors: dict[int, list[str]] | None = None,
    shelves: dict[int, list[str]] | None = None,
    texts: dict[int, str] | None = None,
) -> Path:
    """Write the four raw tables; ratings are (user_id, book_id, rating[, timestamp])."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = list(range(1, n_books + 1))
    genre = ["fantasy", "horror", "poetry", "travel"]
    books = {
        "book_id": pa.array(ids, pa.int64()),
        "title": pa.array([(titles or {}).get(i, f"Book {i}") for i in ids]),
        "description": pa.array([None if i % 3 else f"About book {i}." for i in ids], pa.string()),
        "popular_shelves": pa.array(
            [
                [
                    {"count": "9", "name": s}
                    for s in (shelves or {}).get(i, ["to-read", genre[i % 4]])
                ]
                for i in ids
            ],
            pa.list_(SHELF),
        ),
        "authors": pa.array(
            [(authors or {}).get(i, [str(i % 7)]) for i in ids], pa.list_(pa.string())
        ),
    }
    rows = [tuple(r) for r in ratings]
    columns = {
        "user_id": pa.array([r[0] for r in rows], pa.string()),
        "book_id": pa.array([r[1] for r in rows], pa.int64()),
        "rating": pa.array([r[2] for r in rows], pa.int64()),
    }
    if rows and len(rows[0]) > 3:
        columns["timestamp"] = pa.array([r[3] for r in rows], pa.int64())
    pq.write_table(pa.table(books), folder / "reduced_books.parquet")
    pq.write_table(pa.table(columns), folder / "reduced_interactions.parquet")
    people = [str(i) for i in range(7)]
    pq.write_table(
        pa.table({"author_id": people, "name": [f"Author {i}" for i in people]}),
        folder / "new_authors.parquet",
    )
    given = texts or {}
    pq.write_table(
        pa.table(
            {
                "book_id": pa.array(list(given), pa.int64()),
                "text": pa.array(list(given.values()), pa.string()),
            }
        ),
        folder / "book_texts_reduced.parquet",
    )
    return folder


def some_ratings(n_users: int = 60, n_books: int = 40, per_user: int = 10) -> list[Rating]:
    """Ratings 2..5 of `per_user` distinct books for each user, by arithmetic."""
    return [
        (f"user{u:03d}", 1 + (u * 11 + i * 3) % n_books, 2 + (u + i * i) % 4)
        for u in range(n_users)
        for i in range(per_user)
    ]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def raw(tmp_path: Path) -> Callable[..., Path]:
    """`raw(ratings, **kwargs)` writes raw tables and returns their folder."""
    return lambda ratings=None, **kw: write_raw(
        tmp_path / "raw", some_ratings() if ratings is None else ratings, **kw
    )


@pytest.fixture
def data_cfg(raw: Callable[..., Path]) -> DataConfig:
    return DataConfig(name="bookdb", root=str(raw()), genres=GENRES)


@pytest.fixture
def tables(data_cfg: DataConfig, cache: Cache) -> Tables:
    return load_tables(data_cfg, cache)


@pytest.fixture
def contexts(tables: Tables, data_cfg: DataConfig) -> Contexts:
    return build_contexts(tables, data_cfg)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database with its schema; setting it up takes seconds."""
    from reranker.tracking.store import open_store

    file = tmp_path_factory.mktemp("a störe") / "mlruns" / "mlflow.db"
    open_store(TrackingConfig(uri=f"sqlite:///{file}"))
    return file


@pytest.fixture
def run_cfg(
    database: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Config:
    """Return a config with a separate experiment in the shared database."""
    from reranker.tracking.lifecycle import PARENT
    from tests.helpers.tracked import config as tracked

    for name in (PARENT, "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return tracked(f"sqlite:///{database}", re.sub(r"\W+", "_", request.node.name))


@pytest.fixture(scope="session")
def tiny() -> Encoder:
    """Two layers of random weights; scoring changes nothing in them."""
    from tests.helpers.weights import TINY

    return load_encoder(TINY)


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[hub.Repository, Path]:
    """Tiny checkpoints that have the form of the two pinned models."""
    return hub.write_both(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="session")
def bundle(tiny: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from reranker.serving.bundle import write_bundle
    from tests.helpers.bundles import corpus_of
    from tests.helpers.weights import TINY

    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    return write_bundle(folder, tiny, corpus_of(), model_cfg=TINY)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The Chromium to use; where there is none, what needs it is skipped with the reason."""
    path, reason = chromium.find()
    return path or pytest.skip(reason)
