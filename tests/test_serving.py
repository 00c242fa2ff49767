"""`Reranker`: requests, bundles, and the registry they go through."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reranker import cli
from reranker.config import DataConfig, ModelConfig, TrackingConfig
from reranker.data import ContextBuilder, Tables
from reranker.data.match import Match
from reranker.errors import ModelError, RequestError
from reranker.tracking import registry
from reranker.tracking.registry import Registered, register
from reranker.tracking.serving import Ranked, Reranker, write_bundle

CONTEXT = {"n_titles": 2, "n_genres": 2, "positive_rating": 4.0}
BOOKS = pd.DataFrame(
    [
        (10, "Dune (Dune, #1)", "Dune #1", "Frank Herbert", "science fiction, classics", "", "Dune by Frank Herbert"),
        (20, "Emma", "", "Jane Austen", "romance, classics", "", "Emma by Jane Austen"),
        (30, "It", "", "Stephen King", "horror", "", "It by Stephen King"),
        (40, "Ulysses", "", "James Joyce", "classics", "", "Ulysses by James Joyce"),
    ],
    columns=["book_id", "title", "series", "authors", "genres", "description", "book_text"],
)
EDITIONS = pd.DataFrame({"book_id": [10, 11, 20, 30, 40], "book": np.array([0, 0, 1, 2, 3], dtype=np.int32)})
SCORES = {"Dune by Frank Herbert": 2.0, "Emma by Jane Austen": -1.0, "It by Stephen King": 0.5, "tie": 0.5, "best": 9.0}


class Scorer:
    """Scores from a table; remembers what it was asked."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        self.asked: list[tuple[str, str]] = []

    def __call__(self, queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        self.asked += zip(queries, candidates, strict=True)
        return np.array([self.scores[c] for c in candidates], dtype=np.float32)


@pytest.fixture
def scorer() -> Scorer:
    return Scorer(dict(SCORES))


@pytest.fixture
def reranker(scorer: Scorer) -> Reranker:
    return Reranker(scorer, ContextBuilder(BOOKS, **CONTEXT), BOOKS, EDITIONS)


def ids(ranked: list[Ranked]) -> list[int | str | None]:
    return [r.book_id for r in ranked]


def test_the_highest_score_has_rank_one(reranker: Reranker) -> None:
    assert reranker.rerank("Likes: Dune.", [20, 10, "best"]) == [
        Ranked(1, None, 9.0, "best"),
        Ranked(2, 10, 2.0, "Dune by Frank Herbert"),
        Ranked(3, 20, -1.0, "Emma by Jane Austen"),
    ]


def test_ties_stand_by_id_then_by_the_order_given(reranker: Reranker) -> None:
    candidates = [
        "tie",
        {"text": "tie", "book_id": "b"},
        {"text": "tie", "book_id": 31},
        {"text": "tie", "book_id": "a"},
        30,
    ]
    assert ids(reranker.rerank("Likes: It.", candidates)) == [30, 31, "a", "b", None]


def test_every_candidate_is_scored_with_the_context_and_equal_texts_once(reranker: Reranker, scorer: Scorer) -> None:
    reranker.rerank("Likes: It.", ["best", "tie", "best"])
    assert scorer.asked == [("Likes: It.", "best"), ("Likes: It.", "tie")]


def test_a_given_text_wins_over_the_catalogue(reranker: Reranker) -> None:
    assert reranker.rerank("Likes: It.", [{"book_id": 10, "text": "tie"}]) == [Ranked(1, 10, 0.5, "tie")]


def test_numpy_ids_of_a_frame_are_ids(reranker: Reranker) -> None:
    assert ids(reranker.rerank(None, BOOKS["book_id"].to_numpy()[:2], history=pd.Series([30]))) == [10, 20]


def test_another_edition_has_the_text_of_the_edition_kept_and_its_own_id(reranker: Reranker) -> None:
    assert reranker.rerank("Likes: It.", [11]) == [Ranked(1, 11, 2.0, "Dune by Frank Herbert")]


@pytest.mark.parametrize(
    ("history", "ratings", "context"),
    [
        ([40, 10], None, "Likes: Dune by Frank Herbert; Ulysses by James Joyce. Genres: classics, science fiction"),
        ([10, 40], [4, 5], "Likes: Ulysses by James Joyce; Dune by Frank Herbert. Genres: classics, science fiction"),
        ([10, 30], [5, 3.5], "Likes: Dune by Frank Herbert. Genres: science fiction, classics"),
        ([30], [1.0], "Likes: It by Stephen King. Genres: horror"),
        ([10, 11], [1, 5], "Likes: Dune by Frank Herbert. Genres: science fiction, classics"),
        (
            [30, 11, 10],
            [5, 4, 5],
            "Likes: Dune by Frank Herbert; It by Stephen King. Genres: science fiction, classics",
        ),
    ],
    ids=["all liked", "best rated first", "only liked books", "none liked", "one work", "one work, higher rating"],
)
def test_a_history_becomes_its_context(
    reranker: Reranker, scorer: Scorer, history: list[int], ratings: list[float] | None, context: str
) -> None:
    reranker.rerank(None, ["best"], history=history, ratings=ratings)
    assert scorer.asked == [(context, "best")]


@pytest.mark.parametrize(
    ("history", "ratings", "timestamps", "context"),
    [
        (
            [10, 40],
            None,
            [1, 2],
            "Likes: Ulysses by James Joyce; Dune by Frank Herbert. Genres: classics, science fiction",
        ),
        (
            [10, 40],
            [5, 4],
            [1, 2],
            "Likes: Dune by Frank Herbert; Ulysses by James Joyce. Genres: classics, science fiction",
        ),
        ([30, 10, 11], [4, 5, 1], [1, 1, 2], "Likes: It by Stephen King. Genres: horror"),
    ],
    ids=["latest first", "best rated before latest", "one work, latest rating"],
)
def test_a_history_with_timestamps_becomes_its_context(
    reranker: Reranker,
    scorer: Scorer,
    history: list[int],
    ratings: list[float] | None,
    timestamps: list[int],
    context: str,
) -> None:
    reranker.rerank(None, ["best"], history=history, ratings=ratings, timestamps=timestamps)
    assert scorer.asked == [(context, "best")]


def test_a_history_gives_what_the_context_builder_renders_for_training(reranker: Reranker, scorer: Scorer) -> None:
    user, book, time = np.zeros(3, np.int32), np.array([0, 1, 3], np.int32), np.zeros(3, np.int64)
    rating = np.array([4, 2, 5], np.float32)
    context = ContextBuilder(BOOKS, **CONTEXT).render(user, book, rating, time)[0]
    by_history = reranker.rerank(None, [30, "best"], history=[10, 20, 40], ratings=[4, 2, 5])
    assert by_history == reranker.rerank(context, [30, "best"])
    assert len({query for query, _ in scorer.asked}) == 1


def test_history_books_may_be_candidates(reranker: Reranker) -> None:
    assert ids(reranker.rerank(None, [20, 10], history=[10])) == [10, 20]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"user_ctx": None, "candidates": [10]}, r"user_ctx, history: give exactly one, got neither"),
        ({"user_ctx": "a", "history": [10], "candidates": [10]}, r"user_ctx, history: give exactly one, got both"),
        ({"user_ctx": " \n", "candidates": [10]}, r"user_ctx is blank"),
        ({"user_ctx": 7, "candidates": [10]}, r"user_ctx is of type int"),
        ({"user_ctx": "a\ud800", "candidates": [10]}, r"user_ctx holds half of a surrogate pair"),
        ({"user_ctx": "a", "ratings": [5], "candidates": [10]}, r"ratings: these belong to history"),
        ({"history": [], "candidates": [10]}, r"history is empty"),
        ({"history": "10", "candidates": [10]}, r"history is of type str"),
        ({"history": [10, 99, 98], "candidates": [10]}, r"history\[1\]=99 is not in the model's catalogue of 5"),
        ({"history": [2**70], "candidates": [10]}, r"history\[0\]=1180591620717411303424 is not in"),
        ({"history": ["10"], "candidates": [10]}, r"history\[0\]='10' is not an integer"),
        ({"history": [True], "candidates": [10]}, r"history\[0\]=True is not an integer"),
        ({"history": [10, 20, 10], "candidates": [10]}, r"history\[2\]=10 repeats history\[0\]"),
        ({"history": [10, 20], "ratings": [5], "candidates": [10]}, r"ratings has 1 values for 2 history books"),
        ({"history": [10], "ratings": [float("nan")], "candidates": [10]}, r"ratings\[0\]=nan is not a rating"),
        ({"history": [10, 20], "ratings": [5, float("inf")], "candidates": [10]}, r"ratings\[1\]=inf is not a rating"),
        ({"history": [10], "ratings": [6], "candidates": [10]}, r"ratings\[0\]=6 .* from 1 to 5"),
        ({"history": [10], "ratings": ["5"], "candidates": [10]}, r"ratings\[0\]='5' is not a rating"),
        ({"user_ctx": "a", "timestamps": [5], "candidates": [10]}, r"timestamps: these belong to history"),
        ({"history": [10, 20], "timestamps": [5], "candidates": [10]}, r"timestamps has 1 values for 2 history books"),
        ({"history": [10], "timestamps": [1.5], "candidates": [10]}, r"timestamps\[0\]=1.5 is not a time"),
        ({"history": [10], "timestamps": [-1], "candidates": [10]}, r"timestamps\[0\]=-1 is not a time"),
        ({"history": [10], "timestamps": [2**63], "candidates": [10]}, r"timestamps\[0\]=9223372036854775808 is not"),
        ({"user_ctx": "a", "candidates": []}, r"candidates is empty"),
        ({"user_ctx": "a", "candidates": "best"}, r"candidates is of type str"),
        ({"user_ctx": "a", "candidates": None}, r"candidates is of type NoneType"),
        ({"user_ctx": "a", "candidates": ["best", " "]}, r"candidates\[1\] is blank"),
        ({"user_ctx": "a", "candidates": [1.5]}, r"candidates\[0\] is of type float"),
        ({"user_ctx": "a", "candidates": [10, 99]}, r"candidates\[1\]\.book_id=99 is not in the model's catalogue"),
        ({"user_ctx": "a", "candidates": [{"book_id": "10"}]}, r"candidates\[0\]\.text is missing; book_id='10'"),
        ({"user_ctx": "a", "candidates": [{}]}, r"candidates\[0\]\.text is missing"),
        (
            {"user_ctx": "a", "candidates": [{"book_id": 1.0, "text": "a"}]},
            r"candidates\[0\]\.book_id is of type float",
        ),
        ({"user_ctx": "a", "candidates": [{"text": "a", "id": 1}]}, r"candidates\[0\]\.id is unknown"),
        (
            {"user_ctx": "a", "candidates": [10, 20, {"book_id": 10, "text": "x"}]},
            r"\[2\]\.book_id=10 repeats candidates\[0\]",
        ),
        ({"user_ctx": "a", "candidates": ["x" * 100_001]}, r"candidates\[0\] has 100001 characters"),
        ({"user_ctx": "a", "candidates": ["x"] * 10_001}, r"10001 are more than 10000"),
    ],
)
def test_a_bad_request_names_its_field(reranker: Reranker, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        reranker.rerank(**{"user_ctx": None, **request_})


def test_scores_that_are_not_finite_are_an_error(reranker: Reranker, scorer: Scorer) -> None:
    scorer.scores["best"] = float("nan")
    with pytest.raises(ModelError, match="1 of 2 scores are not finite"):
        reranker.rerank("Likes: It.", ["best", "tie"])


@pytest.fixture(scope="module")
def encoder() -> Any:
    from reranker.model import load

    return load(ModelConfig(name="tiny", source="random", max_length=64))


@pytest.fixture(scope="module")
def bundle(encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    tables = Tables(BOOKS, pd.DataFrame(), pd.DataFrame(), EDITIONS, 4.0, "digest of tables", {}, folder)
    data_cfg = DataConfig(name="demo", context_titles=2, context_genres=2)
    return write_bundle(folder, encoder, tables, data_cfg, ModelConfig(name="tiny", source="random", max_length=64))


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copied")


@pytest.mark.slow
def test_a_bundle_scores_as_the_encoder_that_it_was_written_from(bundle: Path, encoder: Any) -> None:
    texts = BOOKS["book_text"].tolist()
    ranked = Reranker.from_folder(bundle).rerank("Likes: Dune by Frank Herbert.", BOOKS["book_id"].tolist())
    expected = encoder.score(["Likes: Dune by Frank Herbert."] * len(texts), texts)
    order = np.argsort(-expected)
    assert ids(ranked) == BOOKS["book_id"].to_numpy()[order].tolist()
    assert [r.score for r in ranked] == pytest.approx(expected[order].tolist(), abs=1e-5)


@pytest.mark.slow
def test_a_bundle_renders_a_history_as_training_did(bundle: Path) -> None:
    loaded = Reranker.from_folder(bundle)
    context = "Likes: Dune by Frank Herbert; Ulysses by James Joyce. Genres: classics, science fiction"
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(context, [20, 30])


@pytest.mark.slow
def test_a_bundle_keeps_the_context_template(bundle: Path) -> None:
    assert json.loads((bundle / "bundle.json").read_text())["contexts"]["template"] == DataConfig.context_template


@pytest.mark.slow
def test_a_bundle_renders_contexts_by_its_own_template(copied: Path) -> None:
    context = {**CONTEXT, "template": "Read {titles} | {genres}"}
    _edit(copied, contexts=context)
    read = "Read Dune by Frank Herbert; Ulysses by James Joyce | classics, science fiction"
    loaded = Reranker.from_folder(copied)
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(read, [20, 30])


@pytest.mark.slow
def test_a_bundle_names_the_authors_that_its_contexts_show(copied: Path) -> None:
    _edit(copied, contexts={**CONTEXT, "n_authors": 1, "template": "Read {titles} | By {authors}"})
    read = "Read Dune by Frank Herbert; Ulysses by James Joyce | By Frank Herbert"
    loaded = Reranker.from_folder(copied)
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(read, [20, 30])


@pytest.mark.slow
def test_a_bundle_that_shows_matches_puts_the_catalogues_texts_by_the_history(copied: Path) -> None:
    _edit(copied, shows_match=True)
    loaded = Reranker.from_folder(copied)
    context = "Likes: Dune by Frank Herbert; Ulysses by James Joyce. Genres: classics, science fiction"
    history = pd.DataFrame({"user": 0, "book": [loaded._code(b, "") for b in (11, 40)]})
    code = np.array([loaded._code(b, "") for b in (20, 30)])
    texts = Match(BOOKS).before(BOOKS["book_text"], np.zeros(2, int), code, history).to_pylist()
    ranked = loaded.rerank(None, [20, 30], history=[11, 40])
    assert {r.text for r in ranked} == set(texts)
    assert [r.score for r in ranked] == [r.score for r in loaded.rerank(context, texts)]
    with pytest.raises(RequestError, match=r"history is missing: .*shows_match"):
        loaded.rerank(context, [20, 30])


@pytest.mark.slow
def test_a_bundle_of_format_1_renders_contexts_as_they_were_then(copied: Path) -> None:
    _edit(copied, format=1, contexts=CONTEXT)
    loaded = Reranker.from_folder(copied)
    context = "Likes: Dune by Frank Herbert; Ulysses by James Joyce. Genres: classics, science fiction"
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(context, [20, 30])


@pytest.mark.slow
def test_a_bundle_holds_no_reader_and_no_code(bundle: Path) -> None:
    assert set(pd.read_parquet(bundle / "books.parquet")) == set(BOOKS) - {"description"}
    assert {f.suffix for f in bundle.rglob("*") if f.is_file()} == {".json", ".parquet", ".safetensors"}
    assert not any("user" in f.name or "histor" in f.name for f in bundle.rglob("*"))


def _flip_a_bit(folder: Path) -> None:
    path = folder / "weights" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip_a_bit, r"weights/model\.safetensors: SHA-256 .* is not the pinned"),
        (lambda f: (f / "books.parquet").write_bytes(b"PAR1"), r"books\.parquet: SHA-256 .* is not the pinned"),
        (lambda f: (f / "editions.parquet").unlink(), r"editions\.parquet is missing"),
        (lambda f: (f / "weights" / "extra.json").touch(), r"weights/extra\.json does not belong here"),
        (lambda f: (f / "weights" / "model.bin").touch(), r"model\.bin: a bundle holds only \.json"),
        (lambda f: (f / "bundle.json").unlink(), r"no bundle\.json here"),
        (lambda f: (f / "bundle.json").write_text("{"), r"bundle\.json: not JSON"),
        (lambda f: _edit(f, format=4), r"bundle\.json: not a bundle of a format up to 3"),
    ],
    ids=["weights", "books", "missing", "extra", "pickle", "manifest missing", "manifest cut", "format"],
)
def test_a_bundle_that_is_not_as_written_is_refused(copied: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(copied)
    with pytest.raises(ModelError, match=message):
        Reranker.from_folder(copied)


@pytest.fixture(scope="module")
def store_cfg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingConfig]:
    """A fresh store, and MLflow's own setting as it was afterwards."""
    import mlflow

    from reranker.tracking.store import open_store

    cfg = TrackingConfig(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")
    _, experiment = open_store(cfg)
    mlflow.set_experiment(experiment_id=experiment)
    yield cfg
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def put(bundle: Path, store_cfg: TrackingConfig) -> Callable[..., Registered]:
    """`put(dev_ndcg_10, dev_lists)` registers the bundle from a run of its own."""
    import mlflow

    def put(dev_ndcg_10: float, dev_lists: str, name: str | None = "book-reranker", **kwargs: Any) -> Registered:
        with mlflow.start_run():
            cfg = dataclasses.replace(store_cfg, registered_model=name)
            return register(bundle, cfg, dev_ndcg_10=dev_ndcg_10, dev_lists=dev_lists, **kwargs)

    return put


@pytest.fixture(scope="module")
def registered(put: Callable[..., Registered]) -> Registered:
    return put(0.5, "lists a", metrics={"test/ndcg_10": 0.25}, tags={"data": "demo"})


REQUEST = {"history": [11, 40], "ratings": [5.0, 4.0], "candidates": [{"book_id": 20}, {"text": "Title: It"}]}


@pytest.mark.slow
def test_a_version_says_what_it_was_chosen_by_and_the_model_what_it_measured(registered: Registered) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    tags = client.get_model_version("book-reranker", str(registered.version)).tags
    model = client.get_logged_model(registered.model_id)
    assert tags == {"dev_ndcg_10": "0.5", "dev_lists": "lists a", "data": "demo", "run_id": model.source_run_id}
    assert {m.key: m.value for m in model.metrics} == {"test/ndcg_10": 0.25}


@pytest.mark.slow
def test_a_registered_model_loads_by_alias_by_version_and_from_its_folder_alike(
    registered: Registered, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setattr(mlflow.pyfunc, "load_model", lambda *a, **k: pytest.fail("this would run the model's code"))
    expected = Reranker.from_folder(bundle).rerank("Likes: It.", [10, 20, 30, 40])
    for uri in ("models:/book-reranker@champion", registered.uri, f"models:/{registered.model_id}"):
        assert Reranker.load(uri).rerank("Likes: It.", [10, 20, 30, 40]) == expected


@pytest.mark.slow
def test_mlflows_own_loading_predicts_as_the_reranker(registered: Registered) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(registered.uri)
    [ranked] = model.predict([REQUEST])
    expected = Reranker.load(registered.uri).rerank(None, **REQUEST)
    assert [r.model_dump() for r in ranked] == [dataclasses.asdict(r) for r in expected]


@pytest.mark.slow
def test_whoever_loads_the_model_in_mlflow_may_name_a_variant(registered: Registered) -> None:
    """This model has none, which the error says; without the extra it says that."""
    import mlflow

    with pytest.raises(ModelError, match=r"openvino_int8 is not there|openvino is not installed"):
        mlflow.pyfunc.load_model(registered.uri, model_config={"variant": "int8"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": []}, r"inputs\[1\]: candidates is empty"),
        ({"user_ctx": "a"}, r"inputs\[1\]: user_ctx, history: give exactly one"),
        ({"candidates": [{"book_id": "20"}]}, "book_id"),
        ({"history": ["10"]}, "history"),
        ({"extra": 1}, "extra"),
    ],
)
def test_the_served_model_answers_a_bad_request_with_400_and_the_field(
    registered: Registered, change: dict[str, Any], message: str
) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(registered.uri)
    with pytest.raises(mlflow.MlflowException, match=message) as caught:
        model.predict([REQUEST, REQUEST | change])
    assert caught.value.get_http_status_code() == 400


ELSEWHERE = """
import json, sys, tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
ranked = model.predict([json.loads(sys.argv[2])])[0]
import reranker
owners = packages_distributions()
used = {d.lower().replace("_", "-") for m in list(sys.modules) for d in owners.get(m.partition(".")[0], [])}
print(json.dumps([[r.model_dump() for r in ranked], reranker.__file__, sorted(used)]))
"""


@pytest.mark.slow
def test_a_registered_model_runs_where_the_project_is_not_installed(
    registered: Registered, store_cfg: TrackingConfig, tmp_path: Path
) -> None:
    """-S and PYTHONPATH give the libraries without the .pth files that make an editable install importable."""
    env = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib"), "MLFLOW_TRACKING_URI": store_cfg.uri}
    command = [sys.executable, "-S", "-c", ELSEWHERE, registered.uri, json.dumps(REQUEST)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    ranked, package, used = json.loads(done.stdout.splitlines()[-1])
    assert ranked == [dataclasses.asdict(r) for r in Reranker.load(registered.uri).rerank(None, **REQUEST)]
    assert Path(package).parts[-3:] == ("code", "reranker", "__init__.py")
    with open(Path(__file__).parent.parent / "pyproject.toml", "rb") as file:
        direct = {re.split(r"[\[<>=]", d)[0].replace("_", "-") for d in tomllib.load(file)["project"]["dependencies"]}
    by_others = {"boto3", "jinja2"}  # of the requirements' own, where they are installed; serving uses neither
    assert direct & set(used) - set(registry.REQUIREMENTS) - by_others == set()


@pytest.mark.slow
def test_requirements_are_pins_that_an_index_can_serve() -> None:
    pins = dict(line.split("==") for line in registry.pip_requirements())
    assert pins["torch"] == importlib.metadata.version("torch").partition("+")[0]
    assert not [v for v in pins.values() if "+" in v]


@pytest.mark.slow
def test_the_alias_follows_the_best_on_the_same_lists_and_the_latest_on_others(
    put: Callable[..., Registered],
) -> None:
    steps = [
        (0.5, "lists a", True, "no version was champion before"),
        (0.4, "lists a", False, "dev ndcg_10 0.4000 is below version 1's 0.5000, which stays champion"),
        (0.5, "lists a", True, "dev ndcg_10 0.5000 is at least version 1's 0.5000"),
        (0.1, "lists b", True, "version 3, champion before, was measured on other dev lists; the latest wins"),
    ]
    for version, (dev_ndcg_10, dev_lists, moved, reason) in enumerate(steps, start=1):
        got = put(dev_ndcg_10, dev_lists, "by-turns")
        assert (got.version, got.uri) == (version, f"models:/by-turns/{version}")
        assert (got.alias_moved, got.reason) == (moved, reason)


@pytest.mark.slow
def test_without_a_registered_name_the_model_is_logged_and_loads(put: Callable[..., Registered]) -> None:
    got = put(0.5, "lists a", None)
    assert (got.version, got.alias_moved, got.reason) == (None, False, "tracking.registered_model is null")
    assert len(Reranker.load(got.uri).rerank("Likes: It.", [10, 20])) == 2


@pytest.mark.slow
def test_a_figure_that_is_not_finite_is_not_registered(put: Callable[..., Registered]) -> None:
    with pytest.raises(ModelError, match="dev_ndcg_10=nan: no dev user has a positive"):
        put(float("nan"), "lists a")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/book-reranker@best", r"alias best not found.*It has models:/book-reranker@champion"),
        ("models:/no-such/1", r"models:/no-such/1: not in the MLflow store sqlite:.*no-such not found"),
        ("models:/book-reranker/99", r"version=99\) not found"),
        ("nowhere", r"nowhere: not in the MLflow store"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_the_store_and_what_it_has(
    registered: Registered, uri: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Reranker.load(uri)


@pytest.mark.slow
def test_the_command_line_reranks_with_the_champion(
    registered: Registered, store_cfg: TrackingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--history", "11,40", "--candidate-ids", "20,30", "--format", "json", "--tracking-uri", store_cfg.uri]
    assert cli.main(["rerank", *args]) == 0
    expected = Reranker.load(registered.uri).rerank(None, [20, 30], history=[11, 40])
    assert json.loads(capsys.readouterr().out) == {"ranked": [dataclasses.asdict(r) for r in expected]}


@pytest.mark.slow
def test_a_model_of_another_kind_is_refused(store_cfg: TrackingConfig, tmp_path: Path) -> None:
    from mlflow.models import Model

    Model(flavors={"python_function": {"loader_module": "os"}}).save(tmp_path / "MLmodel")
    with pytest.raises(ModelError, match="this model holds no bundle"):
        Reranker.load(str(tmp_path), tracking_uri=store_cfg.uri)


@pytest.mark.slow
def test_a_missing_store_is_named_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    code = f"from reranker import Reranker; Reranker.load('models:/a@b', tracking_uri='sqlite:///{path}')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"ModelError: models:/a@b: there is no MLflow store at {path}." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'mlflow', 'pandas', 'numpy'}"
    code = f"import sys, reranker; print(reranker.__version__, {heavy} & set(sys.modules) or 'nothing heavy')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{importlib.metadata.version('reranker')} nothing heavy\n"
