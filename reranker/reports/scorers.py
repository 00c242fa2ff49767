"""Names and colours of scorers, and titles of list kinds, as all reports show them."""

from __future__ import annotations

from dataclasses import dataclass

from reranker.reports.colours import BLUE, GREEN, GREY, ORANGE, PINK, RED, VIOLET
from reranker.tracking.metric_names import MODELS


@dataclass(frozen=True)
class Scorer:
    """How reports show one scorer.

    Attributes:
        key: Its name in the evaluation's frames, for example `fine_tuned`.
        name: Its name for people.
        colour: Its colour in figures.
        full_name: Its name as the subject of a sentence.
    """

    key: str
    name: str
    colour: str
    full_name: str = ""

    @property
    def is_model(self) -> bool:
        """Whether the scorer comes from fine-tuning; all others are baselines."""
        return self.key in MODELS


# Fine-tuned models and the untrained one have cold colours, baselines have warm ones.
_SCORERS = {
    scorer.key: scorer
    for scorer in (
        Scorer("fine_tuned", "fine-tuned", BLUE, "the fine-tuned model"),
        Scorer("fused", "fused", VIOLET, "the fused model"),
        Scorer("untrained", "untrained", GREEN),
        Scorer("random", "random", GREY),
        Scorer("popularity", "popularity", PINK),
        Scorer("item_knn", "item kNN", ORANGE),
        Scorer("ease", "EASE", RED),
        Scorer("bm25", "BM25", "#9c7a4d"),
        Scorer("genres", "genre overlap", "#a39019"),
        Scorer("authors", "author overlap", "#7f8f2b"),
        Scorer("features_lr", "numeric features only", "#cc4b4b"),
        Scorer("bi_encoder", "bi-encoder", "#bb4fbf"),
        Scorer("bi_encoder_top3", "bi-encoder, top 3", "#a8708a"),
        Scorer("retriever", "first stage", "#6e8a99"),
    )
}


def find_scorer(key: str) -> Scorer:
    """Return the scorer with this key; an unknown key gives a grey scorer named after the key."""
    return _SCORERS.get(key) or Scorer(key, key.replace("_", " "), GREY)


def scorer_name(key: str) -> str:
    """Return a scorer's name for people."""
    return find_scorer(key).name


@dataclass(frozen=True)
class ListKind:
    """How reports show one kind of candidate lists.

    Attributes:
        key: Its name in `eval.list_kinds`.
        title: What these lists are called in a sentence.
        description: How their candidates are chosen.
    """

    key: str
    title: str
    description: str


_LIST_KINDS = {
    kind.key: kind
    for kind in (
        ListKind("uniform", "uniform lists", "negatives are drawn uniformly from all books"),
        ListKind(
            "popularity",
            "popularity-matched lists",
            "negatives are drawn in proportion to their number of ratings",
        ),
        ListKind("retriever", "retrieved lists", "candidates come from a first-stage retriever"),
        ListKind(
            "bookdb",
            "lists of the original system's protocol",
            "three positives and nine negatives per user",
        ),
    )
}


def find_list_kind(key: str) -> ListKind:
    """Return the list kind with this key; an unknown key gives `<key> lists`."""
    return _LIST_KINDS.get(key) or ListKind(key, f"{key} lists", "candidates of another kind")
