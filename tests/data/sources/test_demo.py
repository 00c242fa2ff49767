"""The demo: files are reproducible, tables have their schemas, and only taste explains choices."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reranker.cache import digest, digest_file
from reranker.config import WorldConfig
from reranker.data.sources import demo
from reranker.data.sources.demo import books, words
from reranker.data.sources.demo.ratings import generate

GENRE_NAMES = {genre.name for genre in words.GENRES}
# The expected values in the tests below are computed for this world.
WORLD = WorldConfig(
    n_books=1500,
    n_users=600,
    mean_ratings=24.0,
    taste=1.0,
    popularity_bias=0.5,
    rating_noise=0.5,
    edition_fraction=0.05,
    seed=0,
)
# Lower bound of the share of choices in the first favourite genre; see the test that uses it.
LOW_SHARE = 0.40
# SHA-256 of the word lists, which decide all texts of the world.
WORDS_DIGEST = "438d8e1da52d7a1220533f42c9575ac6916774c9349b01d33862f7164eb20104"


@dataclass(frozen=True)
class World:
    """A generated world.

    Attributes:
        books: Also has `genre`, the most used genre shelf, `author`, the first author, and `stem`,
            the title without brackets.
        ratings: Also has the `genre`, `author` and `stem` of the book.
    """

    cfg: WorldConfig
    folder: Path
    counts: dict[str, object]
    books: pd.DataFrame
    ratings: pd.DataFrame
    texts: pd.DataFrame
    authors: pd.DataFrame


def make(folder: Path, **settings: Any) -> World:
    """Generate WORLD with other settings."""
    cfg = dataclasses.replace(WORLD, **settings)
    folder.mkdir()
    counts = generate(cfg, folder)
    names = ("reduced_books", "reduced_interactions", "book_texts_reduced", "new_authors")
    books, ratings, texts, authors = (pd.read_parquet(folder / f"{name}.parquet") for name in names)
    books["genre"] = [
        next(s["name"] for s in shelves if s["name"] in GENRE_NAMES)
        for shelves in books.popular_shelves
    ]
    books["author"] = books.authors.str[0]
    books["stem"] = books.title.str.replace(r" \(.*\)$", "", regex=True)
    ratings = ratings.merge(books[["book_id", "genre", "author", "stem"]], on="book_id", how="left")
    return World(cfg, folder, counts, books, ratings, texts, authors)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: digest_file(path) for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make(tmp_path_factory.mktemp("demo") / "taste")


@pytest.fixture(scope="module")
def tasteless(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make(tmp_path_factory.mktemp("demo") / "tasteless", taste=0.0)


# Reproducibility


def test_the_word_lists_are_those_of_this_version() -> None:
    genres = [dataclasses.astuple(genre) for genre in words.GENRES]
    names = [words.HABITS, words.ENDINGS, words.SERIES, words.FIRST_NAMES, words.LAST_NAMES]
    assert digest([*genres, *names]) == WORDS_DIGEST  # other words require another demo.VERSION


def test_the_same_seed_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    assert digests(make(tmp_path / "again").folder) == digests(world.folder)


def test_another_process_with_another_hash_seed_gives_the_same_bytes(
    world: World, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from reranker.config import WorldConfig;"
        "from reranker.data.sources import demo;"
        f"demo.generate({WORLD!r}, Path(sys.argv[1]))"
    )
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        env={**os.environ, "PYTHONHASHSEED": other},
        check=True,
    )
    assert digests(tmp_path) == digests(world.folder)


def test_another_seed_gives_another_world(world: World, tmp_path: Path) -> None:
    mine, other = digests(world.folder), digests(make(tmp_path / "other", seed=-1).folder)
    assert all(mine[name] != other[name] for name in mine)


def test_taste_changes_the_ratings_and_not_the_books(world: World, tasteless: World) -> None:
    mine, other = digests(world.folder), digests(tasteless.folder)
    assert [name for name in mine if mine[name] != other[name]] == ["reduced_interactions.parquet"]


def test_the_first_users_do_not_change_when_users_are_added(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = make(tmp_path / "few", n_users=250).ratings
    pd.testing.assert_frame_equal(few, world.ratings.iloc[: len(few)])
    monkeypatch.setattr(demo.ratings, "USERS_PER_CHUNK", 100)
    one, three = (make(tmp_path / str(n), n_users=n).ratings for n in (50, 250))
    pd.testing.assert_frame_equal(one, three.iloc[: len(one)])


def test_the_block_size_does_not_change_the_bytes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.ratings, "CELLS_PER_BLOCK", 7 * 1500 + 1)
    assert digests(make(tmp_path / "blocks").folder) == digests(world.folder)


def test_chunks_have_different_users_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.ratings, "USERS_PER_CHUNK", 40)
    world = make(tmp_path / "chunks", n_users=100)
    file = pq.ParquetFile(world.folder / "reduced_interactions.parquet")
    groups = [file.read_row_group(i).to_pandas() for i in range(file.num_row_groups)]
    assert [g.user_id.nunique() for g in groups] == [40, 40, 20]
    assert world.ratings.user_id.nunique() == 100
    first, second = (g.groupby("user_id", sort=False).size().tolist() for g in groups[:2])
    assert first != second


# The tables


def test_the_tables_have_the_schemas_of_the_raw_tables(world: World) -> None:
    text = pa.string()
    shelf = pa.struct([("count", text), ("name", text)])
    expected = {
        "reduced_books": [
            ("book_id", pa.int64()),
            ("title", text),
            ("description", text),
            ("popular_shelves", pa.list_(pa.field("element", shelf))),
            ("authors", pa.list_(pa.field("element", text))),
            ("publication_year", pa.float64()),
            ("language_code", text),
        ],
        "reduced_interactions": [
            ("user_id", text),
            ("book_id", pa.int64()),
            ("rating", pa.int64()),
            ("timestamp", pa.int64()),
        ],
        "new_authors": [("author_id", text), ("name", text)],
        "book_texts_reduced": [("book_id", pa.int64()), ("text", text)],
    }
    assert {p.stem for p in world.folder.iterdir()} == set(expected)
    for name, fields in expected.items():
        assert pq.read_schema(world.folder / f"{name}.parquet") == pa.schema(fields)


def test_counts_equal_those_of_the_tables(world: World) -> None:
    assert world.counts == {
        "n_books": 1500,
        "n_editions": 75,  # 0.05 * 1500
        "n_users": world.ratings.user_id.nunique(),
        "n_ratings": len(world.ratings),
    }
    assert len(world.books) == 1500 + 75


def test_ids_are_unique_and_refer_to_existing_rows(world: World) -> None:
    assert world.books.book_id.is_unique and world.texts.book_id.is_unique
    assert world.authors.author_id.is_unique
    assert set(world.ratings.book_id) <= set(world.books.book_id)
    assert set(world.texts.book_id) <= set(world.books.book_id)
    assert set(world.books.authors.explode()) <= set(world.authors.author_id)
    assert world.authors.name.is_unique


def test_some_books_lack_a_text_and_some_a_description(world: World) -> None:
    n = len(world.books)
    # Five standard deviations of a share of n draws. Descriptions are drawn per work.
    assert len(world.texts) / n == pytest.approx(0.80, abs=5 * (0.8 * 0.2 / n) ** 0.5)
    tolerance = 5 * (0.85 * 0.15 / 1500) ** 0.5
    assert world.books.description.notna().mean() == pytest.approx(0.85, abs=tolerance)


def test_a_text_has_title_authors_genre_and_description_of_its_book(world: World) -> None:
    name = dict(zip(world.authors.author_id, world.authors.name, strict=True))
    rows = world.texts.merge(world.books, on="book_id")
    for row in rows.itertuples():
        title, authors, *rest = row.text.split(" | ")
        assert title.removesuffix(" (Paperback)") == f"Title: {row.stem}"
        assert authors == f"Authors: {', '.join(name[a] for a in row.authors)}"
        if isinstance(row.description, str):
            assert rest.pop() == row.description
        assert rest.pop().startswith(f"Genres: {row.genre}, ")


def test_shelves_are_sorted_by_count_and_mix_genres_with_habits(world: World) -> None:
    for shelves in world.books.popular_shelves:
        counts = [int(s["count"]) for s in shelves]
        assert counts == sorted(counts, reverse=True)
        assert len({s["name"] for s in shelves}) == len(shelves)
        assert sum(s["name"] in words.HABITS for s in shelves) == 7


def test_titles_of_works_are_distinct(world: World) -> None:
    works = world.books[~world.books.title.str.endswith("(Paperback)")]
    assert len(works) == 1500 and works.stem.str.lower().is_unique


def test_titles_are_distinct_when_all_patterns_of_a_genre_are_used() -> None:
    bank = words.GENRES[0]
    n = len(bank.nouns) * (len(bank.adjectives) * (1 + len(bank.tails)) + len(bank.tails))
    titles = words.titles(np.zeros(n * 3 // 2, dtype=int), np.random.default_rng(0))
    assert len(set(titles)) == len(titles)
    assert titles[n].endswith(" 2") and not titles[n - 1].endswith(" 2")


def test_every_noun_belongs_to_one_genre() -> None:
    nouns = [noun for genre in words.GENRES for noun in genre.nouns]
    assert len(set(nouns)) == len(nouns)


def test_all_genres_have_the_same_number_of_narrow_shelves() -> None:
    # The codes of shelves are computed from this number.
    assert {len(genre.shelves) for genre in words.GENRES} == {4}


def test_author_names_are_distinct_with_and_without_initials() -> None:
    plain = len(words.FIRST_NAMES) * len(words.LAST_NAMES)
    names = words.author_names(plain + 100, np.random.default_rng(0))
    assert len(set(names)) == plain + 100 and all(name[-1].isalpha() for name in names)
    assert sum("." in name for name in names) == 100


def test_series_are_numbered_from_one_and_have_one_first_author(world: World) -> None:
    found = world.books.title.str.extract(r"\((?P<series>[^()]+), #(?P<number>\d+)\)$")
    rows = pd.concat([found, world.books.author], axis=1).dropna()
    assert len(rows) > 100
    for (_, _), numbers in rows.groupby(["series", "author"])["number"]:
        assert sorted(numbers.astype(int)) == list(range(1, len(numbers) + 1)) and len(numbers) >= 2


def test_editions_have_the_stem_and_authors_of_their_work(world: World) -> None:
    other = world.books[world.books.title.str.endswith(" (Paperback)")]
    both = other.merge(world.books.drop(other.index), on="stem", suffixes=("", "_work"))
    assert len(both) == len(other) == 75
    assert (both.authors.map(list) == both.authors_work.map(list)).all()
    assert (both.book_id != both.book_id_work).all()


# The users


def test_no_user_rates_a_book_twice_and_times_increase(world: World) -> None:
    assert not world.ratings.duplicated(["user_id", "book_id"]).any()
    assert (world.ratings.groupby("user_id").timestamp.diff().dropna() > 0).all()
    years = world.ratings.groupby("user_id").timestamp.agg(np.ptp) / (365.25 * 86400)
    assert years.max() > 4  # the longest span of 600 users, uniform between one and five
    assert set(world.ratings.rating) == {1, 2, 3, 4, 5}


def test_few_users_rate_both_editions(world: World) -> None:
    stems = world.books.stem[world.books.title.str.endswith("(Paperback)")]
    titles = world.ratings[world.ratings.stem.isin(stems)]
    n_works = len(titles.drop_duplicates(["user_id", "stem"]))
    n_both = len(titles) - n_works
    assert n_both > 0
    assert n_both == pytest.approx(0.05 * n_works, abs=5 * (0.05 * 0.95 * n_works) ** 0.5)


def test_lengths_of_histories_have_a_geometric_distribution(world: World) -> None:
    n_read = world.ratings.drop_duplicates(["user_id", "stem"]).groupby("user_id").size()
    spread = (20 * 21) ** 0.5  # of 4 plus a geometric variable with mean 20
    assert n_read.min() == 4  # the minimum has probability 1/21; there are 600 users
    assert n_read.mean() == pytest.approx(24.0, abs=5 * spread / 600**0.5)
    assert n_read.std() == pytest.approx(spread, rel=0.25)


def test_histories_have_at_most_a_quarter_of_the_books(tmp_path: Path) -> None:
    world = make(tmp_path / "small", n_books=50, n_users=40, mean_ratings=100.0)
    n_read = world.ratings.drop_duplicates(["user_id", "stem"]).groupby("user_id").size()
    assert n_read.max() == 50 // 4 and len(n_read) == 40


def test_the_minimum_mean_gives_every_user_four_ratings(tmp_path: Path) -> None:
    world = make(tmp_path / "least", n_books=50, n_users=40, mean_ratings=4.0, edition_fraction=0.0)
    assert (world.ratings.groupby("user_id").size() == 4).all()


def test_extreme_settings_give_ratings_within_range(tmp_path: Path) -> None:
    world = make(tmp_path / "extreme", n_users=50, taste=1e6, popularity_bias=1e3, rating_noise=1e3)
    assert set(world.ratings.rating) <= {1, 2, 3, 4, 5}
    assert not world.ratings.duplicated(["user_id", "book_id"]).any()


def test_a_rating_without_noise_or_taste_is_the_rounded_mean(tmp_path: Path) -> None:
    world = make(tmp_path / "flat", n_users=50, taste=0.0, rating_noise=0.0)
    assert set(world.ratings.rating) == {4}  # 3.6 rounds to 4


def halves(
    ratings: pd.DataFrame, score: Callable[[Any], pd.Series]
) -> tuple[pd.DataFrame, pd.Series]:
    """Return every second rating of each user, and whether its genre is the user's top genre.

    The top genre has the highest score in the other half of the user's ratings. Without taste the
    two halves are independent.
    """
    even = ratings.groupby("user_id").cumcount() % 2 == 0
    scores = score(ratings[even].groupby(["user_id", "genre"]).rating)
    top = scores.groupby("user_id").idxmax().str[1]
    rest = ratings[~even].assign(top=lambda frame: frame.user_id.map(top))
    return rest, rest.genre == rest.top


def most_read(groups: Any) -> pd.Series:
    return groups.size()


def best_rated(groups: Any) -> pd.Series:
    return groups.mean()


def deviation(rest: pd.DataFrame, hit: pd.Series) -> float:
    """Return the standard deviation of the difference of mean ratings between hits and others."""
    return float(rest.rating.std() * (1 / hit.sum() + 1 / (~hit).sum()) ** 0.5)


def test_without_taste_a_favourite_genre_is_as_frequent_as_in_the_catalogue(
    tasteless: World,
) -> None:
    rest, hit = halves(tasteless.ratings, most_read)
    expected = rest.top.map(tasteless.ratings.genre.value_counts(normalize=True))
    spread = (expected * (1 - expected)).sum() ** 0.5 / len(rest)
    assert hit.mean() == pytest.approx(expected.mean(), abs=5 * spread)


def test_with_taste_users_prefer_their_favourite_genre(world: World) -> None:
    # Without second genres and authors, a user with three favourites has weight e^3.7 for the first
    # one, e^3.33 + e^2.96 for the other two, and 13 for all other genres. The first one therefore
    # gets 40.4 / 100.7 = 0.40 of the choices. For a user with one favourite it gets
    # 40.4 / 55.4 = 0.73. Its share of the catalogue is 1/16.
    _, hit = halves(world.ratings, most_read)
    assert LOW_SHARE < hit.mean() < 0.73
    assert world.books.genre.value_counts(normalize=True).max() < LOW_SHARE / 4


def group_chi2(ratings: pd.DataFrame, by: str) -> tuple[float, int]:
    """Return N eta^2 of the ratings between groups and the degrees of freedom.

    N eta^2 is about chi-squared distributed if ratings and groups are independent.
    """
    centred = ratings.rating - ratings.rating.mean()
    groups = centred.groupby(ratings[by])
    between = (groups.mean() ** 2 * groups.size()).sum()
    return between / centred.var(), groups.ngroups - 1


@pytest.mark.parametrize("by", ["genre", "author"])
def test_without_taste_ratings_are_independent_of_genre_and_author(
    tasteless: World, by: str
) -> None:
    chi2, df = group_chi2(tasteless.ratings, by)
    # The mean of chi-squared, and five standard deviations.
    assert chi2 == pytest.approx(df, abs=5 * (2 * df) ** 0.5)


def test_ratings_are_higher_in_the_favourite_genre_only_with_taste(
    world: World, tasteless: World
) -> None:
    # A user with three favourites has affinity 1 to the first one, and an average affinity of
    # (27.9 * 0.9 + 19.3 * 0.8) / (27.9 + 19.3 + 13) = 0.67 to the other works: a difference of 0.33
    # stars. With one favourite the affinities are 1 and 0. Without taste there is no difference.
    rest, hit = halves(world.ratings, most_read)
    assert rest.rating[hit].mean() - rest.rating[~hit].mean() > 0.33
    rest, hit = halves(tasteless.ratings, most_read)
    assert rest.rating[hit].mean() == pytest.approx(
        rest.rating[~hit].mean(), abs=5 * deviation(rest, hit)
    )


def test_the_genre_rated_best_is_rated_better_again_only_with_taste(
    world: World, tasteless: World
) -> None:
    rest, hit = halves(tasteless.ratings, best_rated)
    assert rest.rating[hit].mean() == pytest.approx(
        rest.rating[~hit].mean(), abs=5 * deviation(rest, hit)
    )
    rest, hit = halves(world.ratings, best_rated)
    assert rest.rating[hit].mean() - rest.rating[~hit].mean() > 5 * deviation(rest, hit)


@pytest.mark.parametrize("name", ["world", "tasteless"])
def test_times_are_independent_of_ratings(name: str, request: pytest.FixtureRequest) -> None:
    ratings = request.getfixturevalue(name).ratings
    groups = ratings.groupby("user_id")
    position = groups.cumcount() / groups.rating.transform("size")
    assert position.corr(ratings.rating) == pytest.approx(0.0, abs=5 / len(ratings) ** 0.5)


def test_half_to_two_thirds_of_ratings_are_positives(world: World) -> None:
    # Four fifths of the choices are favourites. Their expected rating is 3.8, which is 0.6 standard
    # deviations above 3.5, where ratings round to 4: 73 % of them are positive. The expected rating
    # of all other choices is 2.8, and 8 % of them are positive. Together that is 60 %.
    assert (world.ratings.rating >= 4).mean() == pytest.approx(0.60, abs=0.05)


@pytest.mark.parametrize(("bias", "tolerance"), [(0.0, 0.013), (0.5, 0.03), (1.0, 0.06)])
def test_popularity_bias_raises_the_share_of_the_popular_tenth(
    tmp_path: Path, bias: float, tolerance: float
) -> None:
    # The expected value is for sampling with replacement. Without replacement the share is lower,
    # because users have already read the most popular books.
    world = make(tmp_path / "biased", taste=0.0, popularity_bias=bias, edition_fraction=0.0)
    works = books.build(world.cfg)
    weight = np.exp(bias * works.log_popularity)
    popular = np.argsort(-works.log_popularity)[:150]
    share = world.ratings.book_id.isin(works.book_id[popular]).mean()
    expected = weight[popular].sum() / weight.sum()
    # 0.013 is five standard deviations of 14,200 choices with probability 0.1.
    assert expected - tolerance < share < expected + 0.013


def test_popularity_is_independent_of_genre(world: World) -> None:
    works = books.build(world.cfg)
    frame = pd.DataFrame({"genre": works.genre, "rating": works.log_popularity})
    chi2, df = group_chi2(frame, "genre")
    assert chi2 == pytest.approx(df, abs=5 * (2 * df) ** 0.5)
