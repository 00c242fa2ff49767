"""The schema of the configuration: one dataclass per group of `conf/`, and the allowed values.

The comments of the fields are the descriptions in docs/configuration.md; see reference.py.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from reranker.cache import LEFT_OUT_AT_DEFAULT

CHOICES: dict[str, tuple[str, ...]] = {
    "data.name": ("demo", "bookdb", "bookdb_features", "ucsd", "goodbooks", "pairs"),
    "data.text": ("given", "template"),
    "data.zero_rating": ("error", "rating", "unrated"),
    "data.storage.checksum": ("when_required", "when_supported"),
    "sampling.split_by": ("user", "pair"),
    "sampling.context": ("holdout", "leave_one_out"),
    "sampling.strategy": ("uniform", "popularity", "retriever", "mix"),
    "sampling.shortfall": ("error", "truncate"),
    "eval.retriever": ("item_knn", "ease"),
    "model.source": ("wheel", "hub", "random", "path", "registered"),
    "model.activation": ("identity", "sigmoid", "tanh", "relu", "silu"),
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
# Baselines that may score training pairs: they do not know the labels of training users. The
# exception is features_lr, which fits five coefficients to the labels of all pairs.
TEACHERS = ("features_lr", "bm25", "genres", "authors", "bi_encoder", "bi_encoder_top3")
# Baselines that need no ratings, no catalogue and no context side: those of a pairs file.
PAIRS_BASELINES = ("random", "popularity", "bm25")
ON_SCORES = ("mse", "margin_mse")  # losses whose target is a teacher's score, not the label
MODEL_URI = re.compile(r"[a-z][a-z0-9+.-]*:/")  # the start of an MLflow model URI
STAGES = ("tables", "pairs", "refine", "train", "evaluate")  # in the order of a run
VARIANTS = ("int8", "bf16")  # of a model, exported to a folder with its weights


def added(default: Any) -> Any:
    """Return the field of a key that was added later, and changes digests only if it is set."""
    return field(default=default, metadata={LEFT_OUT_AT_DEFAULT: True})


@dataclass
class WorldConfig:
    """The generated ratings of `data=demo`: their size, and how users choose and rate books."""

    n_books: int = 1500  # number of works; second editions are added to them
    n_users: int = 600  # number of users
    # Mean number of ratings per user. The distribution is geometric, with at least 4 per user.
    mean_ratings: float = 24.0
    # How strongly genre and author decide what users choose and rate. 0: not at all, 1: strongly.
    taste: float = 1.0
    popularity_bias: float = 0.5  # exponent of a book's popularity in the choice of books
    rating_noise: float = 0.5  # standard deviation of the noise in a rating, in stars
    # Share of works that have a second edition under another book_id.
    edition_fraction: float = 0.05
    seed: int = 0  # random seed of the generated ratings


@dataclass
class StorageConfig:
    """Access to an `s3://` root.

    Credentials come only from the environment or the AWS credential chain.
    """

    # Endpoint of an S3-compatible store such as Cloudflare R2, https://HOST[:PORT]; null: AWS.
    endpoint_url: str | None = None
    region: str | None = None  # region of the bucket; auto for R2
    # when_required: for stores that refuse the new checksum headers | when_supported: always send
    # and check them.
    checksum: str = "when_required"
    n_transfers: int = 8  # number of objects that are transferred at the same time
    max_attempts: int = 5  # attempts per request, and per download that arrives damaged


@dataclass
class DataConfig:
    """The raw tables, the split of users and histories, and the texts of books and contexts."""

    # demo | bookdb | bookdb_features | ucsd | goodbooks: the format of the raw tables | pairs:
    # there are no tables; the run trains on sampling.path and evaluates on its held-out users.
    name: str = MISSING
    # Folder or s3://BUCKET/PREFIX with the files of the source; null for demo, which generates
    # its tables.
    root: str | None = None
    max_users: int | None = None  # number of users, chosen by a hash of their id; null: all
    min_ratings: int = 4  # users with fewer rated books are dropped and counted
    # Lowest rating of a positive, in the units of the data.
    positive_rating: float = 4.0
    # Lowest and highest rating. null: the data have no ratings, or they are not read; every book
    # of a user is a positive.
    rating_range: list[float] | None = field(default_factory=lambda: [1.0, 5.0])
    # What a rating of 0 means. error: it is not expected | rating: the lowest rating | unrated:
    # read but not rated, like a missing rating; the row is dropped and counted.
    zero_rating: str = "error"
    # Share of a history that is held out as targets: the latest ratings if there are timestamps.
    target_fraction: float = 0.5
    dev_fraction: float = 0.1  # share of users for decisions: best checkpoint, sweeps
    test_fraction: float = 0.2  # share of users for the final evaluation
    context_titles: int = 6  # number of titles in a user context, best rated first
    # Number of authors in a user context, most frequent first. Above 0 if and only if
    # context_template has {authors}.
    context_authors: int = 0
    context_genres: int = 4  # number of genres in a user context, most frequent first
    max_genres: int = 4  # number of genres per book, rarest first
    # Genre -> the shelves (Goodreads tags) that mean it; a vocabulary is a file in
    # conf/data/genres/.
    genres: dict[str, list[str]] = field(default_factory=dict)
    # given: the text of the source; book_template is used for books without one |
    # template: book_template for all books.
    text: str = "given"
    # Numeric features that are put before a candidate's text: ease (its rank by EASE, without the
    # user's own ratings), authors and genres (shared with the context), readers (users whose
    # context side has the book).
    text_features: list[str] = field(default_factory=list)
    # Text of a book. Its parts are separated by " | ", a line break, or a full stop and a space; a
    # part whose field is empty is left out.
    book_template: str = (
        "Title: {title} | Authors: {authors} | Series: {series} | Genres: {genres}"
        " | Description: {description}"
    )
    context_template: str = "Likes: {titles}. Genres: {genres}"  # text of a user context
    batch_rows: int = 1_000_000  # rows of a large file in memory at the same time
    seed: int = 0  # random seed of splits, holdouts and the sample of users
    storage: StorageConfig = field(default_factory=StorageConfig)
    world: WorldConfig = field(default_factory=WorldConfig)


@dataclass
class MixConfig:
    """The share of negatives from each source with `sampling.strategy=mix`. They add up to 1."""

    uniform: float = 0.0  # books that the user has not rated, drawn uniformly
    popularity: float = 0.0  # books that the user has not rated, drawn by popularity
    retriever: float = 0.0  # hard negatives
    # Target books with a rating of at most sampling.disliked_rating.
    disliked: float = 0.0


@dataclass
class SamplingConfig:
    """The training pairs. Candidate lists for evaluation never depend on these keys."""

    # holdout: a user's context and targets are disjoint | leave_one_out: the context has all
    # liked books of the user except the target.
    context: str = "holdout"
    # Source of the negatives: uniform | popularity | retriever (hard negatives) | mix (see
    # sampling.mix).
    strategy: str = "uniform"
    neg_ratio: int = 3  # negatives per positive, distinct within a context
    # Negatives per positive that refinement keeps, of the neg_ratio that were drawn; null: all.
    negatives_per_positive: int | None = added(None)
    # Negatives by popularity are drawn in proportion to (number of known ratings) ** this.
    popularity_exponent: float = 0.75
    # Hard negatives are drawn from this number of books that a first stage ranks highest.
    retriever_depth: int = 100
    # Books whose score exceeds this share of the positive's score are never hard negatives,
    # because they may be false negatives.
    retriever_margin: float = 0.95
    mix: MixConfig = field(default_factory=MixConfig)
    disliked_rating: float = 2.0  # highest rating of a book that is a disliked negative
    # For a user with too few books to draw from: error | truncate (fewer negatives, which are
    # counted).
    shortfall: str = "error"
    min_positives: int = 1  # train users with fewer positive targets are dropped
    max_positives: int | None = 3  # highest number of positives per user; null: all
    # Number of train users with pairs, chosen by a hash of their id; null: all.
    max_users: int | None = None
    # Approximate number of pairs in a part file. A worker has one part in memory at a time.
    part_pairs: int = 250_000
    seed: int = 0  # random seed of positives and negatives
    # Pairs that another step or tool wrote, in place of generated ones: a parquet file, a folder of
    # part files or a glob, with user_id, user_ctx, book_text, label and perhaps book_id.
    path: str | None = added(None)
    # Positions of the part files of sampling.path that are read, from 0; null: all.
    parts: list[int] | None = field(default=None, metadata={LEFT_OUT_AT_DEFAULT: True})
    # data=pairs: share of the users of sampling.path that are held out, half of them for dev and
    # half for test.
    val_size: float = added(0.1)
    # data=pairs: user | pair (held-out pairs of users who also have training pairs: this leaks).
    split_by: str = added("user")
    # Name of the refined pairs in output_dir.
    refined_file: str = added("processed_training_pairs.parquet")
    regenerate: bool = False  # build the pairs even if they are in the cache


@dataclass
class ModelConfig:
    """The weights at the start of fine-tuning, and how they score."""

    name: str = MISSING  # name in logs and reports
    # wheel | hub | random | path | registered: where the weights come from.
    source: str = MISSING
    # Any folder of weights, the folder of a bundle, or a model URI; it overrides `source`.
    path: str | None = None
    # registered: models:/NAME@ALIAS, models:/NAME/3, runs:/RUN/reranker, or a folder. The model's
    # own max_length, activation and attention are used.
    uri: str | None = added(None)
    hub_id: str | None = None  # name on the Hugging Face hub
    revision: str | None = None  # commit of hub_id, 40 hex digits
    package: str | None = None  # import name of the wheel that has a folder `model/`
    sha256: str | None = None  # SHA-256 of model.safetensors, checked before loading
    max_length: int = 256  # highest number of tokens of context and book together
    # Number of encoder layers, evenly spaced over the checkpoint's and including its first and
    # last; null: all.
    layers: int | None = None
    dropout: float | None = None  # dropout rate; null: the checkpoint's
    # identity | sigmoid | tanh | relu | silu: applied to the logit when scoring. Training uses
    # logits. relu gives all negative logits the same score, and silu is not monotone below -1.28.
    activation: str = "identity"
    # full | shared_context: the context does not attend to the book, so that it is computed once
    # for all candidates of a group.
    attention: str = "full"
    # fp32 | bf16: precision of the linear layers when scoring. bf16 changes scores by about 1e-2.
    scoring: str = "fp32"
    # Random seed of weights that the checkpoint lacks (a new head), or of all with source=random.
    seed: int = 0


@dataclass
class TrainerConfig:
    """Fine-tuning of the cross-encoder."""

    epochs: float = 1.0  # number of passes over the pairs; may be a fraction
    max_steps: int | None = None  # number of optimiser steps; overrides `epochs` unless null
    # On labels: bce | softmax | ranknet | lambdaloss | listnet | plistmle. On the scores of a
    # teacher: margin_mse | mse.
    loss: str = "bce"
    # Model that is distilled: a model URI, a folder of weights, a bundle, or one of the baselines
    # features_lr, bm25, genres, authors, bi_encoder, bi_encoder_top3.
    teacher: str | None = None
    # Weight of an MSE-to-teacher term that is added to a loss on labels.
    teacher_weight: float = 0.0
    pos_weight: float = 1.0  # bce: weight of a positive; a negative has weight 1
    # Pairs per step and process. Pairwise and listwise losses keep a group together, so the
    # number is approximate.
    batch_size: int = 16
    # Pairs of a query that a pairwise or listwise loss compares; larger groups are divided.
    group_size: int = 32
    # Tokens per forward pass. A larger batch is divided into micro-batches whose gradients are
    # accumulated.
    batch_tokens: int = 8192
    learning_rate: float = 1e-4  # highest learning rate
    # Learning rate of a head (pooler and classifier) that the checkpoint lacks; null:
    # learning_rate.
    head_learning_rate: float | None = None
    # Share of the steps, from the first one, in which only pooler and classifier are trained.
    freeze_body_fraction: float = 0.0
    weight_decay: float = 0.01  # weight decay of all weights except biases and LayerNorms
    max_grad_norm: float | None = 1.0  # longer gradients are clipped to this norm; null: never
    warmup_fraction: float = 0.1  # share of the steps with a rising learning rate
    # Number of steps with a rising learning rate, in place of warmup_fraction; null: the fraction.
    warmup_steps: int | None = None
    # linear | cosine: decay of the learning rate after the warm-up.
    schedule: str = "linear"
    # Recompute each layer in the backward pass: less memory, more time.
    gradient_checkpointing: bool = False
    # Use torch.compile for the forward pass: for long trainings on a GPU; needs a C++ compiler.
    compile: bool = False
    # auto: bf16 where it is faster (on a GPU that supports it, on a CPU after a short trial) |
    # fp32 | bf16.
    precision: str = "auto"
    device: str = "auto"  # auto: the GPU if there is one | cpu | cuda
    # Number of evaluations on the dev lists during training; the best checkpoint is kept.
    n_evaluations: int = 4
    # Number of steps between two evaluations, in place of n_evaluations; null: n_evaluations at
    # equal intervals. The dev lists are always scored after the last step.
    evaluation_steps: int | None = added(None)
    # Training ends after this number of evaluations in a row without a new best; null: never.
    patience: int | None = None
    # Stop with an error if no evaluation from the second one on beats the untrained model.
    stop_below_start: bool = False
    # Folder for a checkpoint at every evaluation; a later run resumes from it. null: none.
    checkpoint_dir: str | None = None
    log_steps: int = 10  # steps between two logged values
    seed: int = 0  # random seed of the order of pairs, and of dropout


@dataclass
class EvalConfig:
    """The candidate lists, the metrics and the baselines."""

    # Kinds of candidate lists: uniform, popularity, retriever, bookdb. The first one is the
    # headline.
    list_kinds: list[str] = field(default_factory=lambda: ["uniform"])
    n_candidates: int = 100  # number of books per list; bookdb lists always have 12
    # Number of positives in a uniform or popularity list; further targets are left out of the list.
    max_positives: int = 10
    # Number of test users, chosen by a hash of their id; null: all.
    max_users: int | None = None
    # Number of dev users, chosen by a hash of their id; null: all.
    max_dev_users: int | None = None
    # Ranks k of the metrics ndcg_k; 10 is required.
    cutoffs: list[int] = field(default_factory=lambda: [3, 5, 10])
    # item_knn | ease: the first stage whose best n_candidates books are a retriever list.
    retriever: str = "item_knn"
    # Number of most rated books that EASE has weights for; other books score 0. EASE needs
    # 16 bytes x the square of this number.
    ease_books: int = 5000
    # Baselines that are scored on every list.
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
    # Number of users of the headline lists that are scored again with the context of another user
    # and with an empty context.
    max_check_users: int = 40
    # Number of bootstrap resamples of users for each confidence interval.
    n_bootstrap: int = 2000
    seed: int = 0  # random seed of candidate lists, checks and intervals


@dataclass
class TrackingConfig:
    """The MLflow store of the runs, and the name of the registered model."""

    uri: str = MISSING  # tracking URI of MLflow
    experiment: str = "reranker"  # MLflow experiment
    # Store the model in MLflow. false: it stays in the run's folder, as bundle-…, and is not
    # registered either, whatever registered_model is.
    log_model: bool = True
    # Name in the model registry; null: the model is logged but not registered.
    registered_model: str | None = "book-reranker"
    # Alias that moves to a new version, unless its holder scored higher on the same dev lists.
    alias: str = "champion"


@dataclass
class EngineConfig:
    """How Dask generates the pairs. The pairs do not depend on these keys."""

    scheduler: str = "threads"  # synchronous | threads | processes | cluster: where tasks run
    n_partitions: int = 4  # number of Dask tasks; every user belongs to one task
    address: str | None = None  # address of the Dask scheduler (cluster), tcp://HOST:PORT


@dataclass
class Config:
    """The configuration of one run."""

    # Random seed of every stage; data.seed, sampling.seed and so on follow it unless they are set.
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    # What the run does: all | some of tables, pairs, refine, train, evaluate. The input of a stage
    # that is left out is read from the cache or from given files. refine reads sampling.path.
    stages: Any = "all"
    # Folder or s3://BUCKET/PREFIX that receives the tables, pairs, model and reports under plain
    # names; null: none. An s3:// place uses data.storage.
    output_dir: str | None = None
    cache_dir: str = MISSING  # folder for tables, pairs and scores that later runs reuse
    experiments: Any = None  # the group `experiments/`, chosen by name


_FIELDS = dataclasses.fields(Config)
GROUPS = {f.name for f in _FIELDS if dataclasses.is_dataclass(f.default_factory)} | {"experiments"}


def added_defaults() -> dict[str, object]:
    """Return the keys that were added later, as `group.key`, with their defaults."""
    groups: dict[str, Any] = {f.name: f.default_factory for f in dataclasses.fields(Config)}
    return {
        f"{name}.{key.name}": key.default
        for name, group in groups.items()
        if dataclasses.is_dataclass(group)
        for key in dataclasses.fields(group)
        if key.metadata.get(LEFT_OUT_AT_DEFAULT)
    }


# Keys that follow `seed` in a composed configuration unless they are set.
SEEDS = ("data.seed", "data.world.seed", "sampling.seed", "model.seed", "trainer.seed", "eval.seed")
