"""Check the choices, ranges and combinations of a configuration before any work starts."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any
from urllib.parse import urlsplit

from reranker import templates
from reranker.config import renamed
from reranker.config.schema import (
    BASELINES,
    CHOICES,
    LIST_KINDS,
    ON_SCORES,
    TEACHERS,
    TEXT_FEATURES,
    Config,
    DataConfig,
    EngineConfig,
    EvalConfig,
    ModelConfig,
    SamplingConfig,
    StorageConfig,
    TrainerConfig,
    WorldConfig,
)
from reranker.errors import ConfigError

# Key, allowed values, whether the value is allowed.
Range = tuple[str, str, bool]


def validate(config: Config) -> None:
    """Check choices, ranges and combinations.

    Raises:
        ConfigError: The first impossible key, with its allowed values. No key may be a blank text,
            because a blank path would be the working directory, and no number may be infinite or
            NaN.
    """
    _check_scalars(dataclasses.asdict(config), "")
    for key in renamed.VALUES:
        value = _value(config, key)
        renamed.check_values(key, value if isinstance(value, list) else [value])
    for key, choices in CHOICES.items():
        value = _value(config, key)
        if value not in choices:
            raise ConfigError(f"{key}={value!r} is unknown; choose one of {', '.join(choices)}.")
    _check_members("eval.list_kinds", config.eval.list_kinds, LIST_KINDS)
    _check_members("eval.baselines", config.eval.baselines, BASELINES)
    if config.data.text_features:
        _check_members("data.text_features", config.data.text_features, TEXT_FEATURES)
    for key, allowed, ok in ranges(config):
        if not ok:
            raise ConfigError(f"{key}={_value(config, key)!r} is impossible; it must be {allowed}.")
    _check_genres(config.data.genres)
    templates.parse_book(config.data.book_template)
    templates.parse_context(config.data.context_template)
    _check_combinations(config)


def _check_scalars(value: object, key: str) -> None:
    """Refuse blank texts and non-finite numbers at any depth."""
    if isinstance(value, dict):
        for name, member in value.items():
            _check_scalars(member, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for i, member in enumerate(value):
            _check_scalars(member, f"{key}[{i}]")
    elif isinstance(value, str) and not value.strip():
        raise ConfigError(f"{key} is blank; give a value, or leave the key out for its default.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value} is impossible; it must be a finite number.")


def check_storage(root: str | None, storage: StorageConfig) -> None:
    """Refuse a root or an endpoint that is malformed or contains credentials.

    The messages do not repeat the value, because it may contain a secret.

    Raises:
        ConfigError: A scheme other than `s3://`, no bucket, an endpoint that is not
            http(s)://HOST[:PORT], or userinfo.
    """
    is_url = root is not None and "://" in root
    if is_url and not re.fullmatch(r"s3://[A-Za-z0-9][\w.-]+(/[^?#\0]*)?", str(root)):
        raise ConfigError(
            f"data.root={str(root).split(':')[0]}://… is neither a folder nor s3://BUCKET/PREFIX "
            "(a bucket's name has letters, digits, '.', '-' and '_'; credentials come only from "
            "the environment or the AWS credential chain)."
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
            "data.storage.endpoint_url must have the form https://HOST[:PORT], without "
            "credentials; these come from the environment (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY) or the AWS credential chain."
        )


def _check_genres(genres: dict[str, list[str]]) -> None:
    if not genres:
        raise ConfigError(
            "data.genres is empty; choose a vocabulary, data/genres=goodreads, or set "
            "genre: [shelves]."
        )
    seen: dict[str, str] = {}
    for genre, shelves in genres.items():
        if genre != " ".join(genre.split()) or "," in genre or not genre:
            raise ConfigError(
                f"data.genres: {genre!r} is not a valid genre; use words with single spaces "
                "between them and no comma."
            )
        for shelf in shelves:
            if (other := seen.setdefault(shelf, genre)) != genre:
                raise ConfigError(
                    f"data.genres: shelf {shelf!r} means {other!r} and {genre!r}; "
                    "list each shelf once."
                )


def _value(config: Config, key: str) -> object:
    node: Any = config
    for part in key.split("."):
        node = getattr(node, part)
    return node


def _check_members(key: str, values: list[str], choices: tuple[str, ...]) -> None:
    if not values or len(set(values)) < len(values):
        raise ConfigError(
            f"{key}={values}: list at least one, each once; choose from {', '.join(choices)}."
        )
    for value in values:
        if value not in choices:
            raise ConfigError(f"{key}: {value!r} is unknown; choose from {', '.join(choices)}.")


def ranges(c: Config) -> list[Range]:
    """Return every key with a range: key, allowed values, whether the value of `c` is allowed."""
    return [
        *_data_ranges(c.data),
        *_world_ranges(c.data.world),
        *_sampling_ranges(c.sampling),
        *_model_ranges(c.model),
        *_trainer_ranges(c.trainer),
        *_eval_ranges(c.eval),
        ("engine.n_partitions", "at least 1", c.engine.n_partitions >= 1),
        ("seed", "at least 0", c.seed >= 0),
    ]


def _data_ranges(d: DataConfig) -> list[Range]:
    return [
        ("data.min_ratings", "at least 2, so that a history can be split", d.min_ratings >= 2),
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
    ]


def _keeps_negatives(s: SamplingConfig) -> bool:
    """Return whether sampling.negatives_per_positive is possible; given pairs have any ratio."""
    n, most = s.negatives_per_positive, s.neg_ratio if s.path is None else float("inf")
    return n is None or 1 <= n <= most


def _distinct(values: list[int]) -> bool:
    return len(set(values)) == len(values)


def _world_ranges(w: WorldConfig) -> list[Range]:
    return [
        ("data.world.n_books", "at least 50", w.n_books >= 50),
        ("data.world.n_users", "at least 10", w.n_users >= 10),
        ("data.world.mean_ratings", "at least 4", w.mean_ratings >= 4),
        ("data.world.taste", "at least 0", w.taste >= 0),
        ("data.world.popularity_bias", "at least 0", w.popularity_bias >= 0),
        ("data.world.rating_noise", "at least 0", w.rating_noise >= 0),
        ("data.world.edition_fraction", "from 0 to 1", 0 <= w.edition_fraction <= 1),
    ]


def _sampling_ranges(s: SamplingConfig) -> list[Range]:
    return [
        ("sampling.neg_ratio", "at least 1", s.neg_ratio >= 1),
        (
            "sampling.negatives_per_positive",
            "from 1 to sampling.neg_ratio, or null",
            _keeps_negatives(s),
        ),
        ("sampling.min_positives", "at least 1", s.min_positives >= 1),
        (
            "sampling.max_positives",
            "at least sampling.min_positives, or null",
            s.max_positives is None or s.max_positives >= s.min_positives,
        ),
        ("sampling.part_pairs", "at least 1", s.part_pairs >= 1),
        ("sampling.val_size", "between 0 and 1, exclusive", 0 < s.val_size < 1),
        (
            "sampling.parts",
            "distinct positions from 0, or null",
            s.parts is None or (bool(s.parts) and min(s.parts) >= 0 and _distinct(s.parts)),
        ),
        (
            "sampling.refined_file",
            "a file name that ends in .parquet",
            s.refined_file.endswith(".parquet") and "/" not in s.refined_file,
        ),
        ("sampling.popularity_exponent", "at least 0", s.popularity_exponent >= 0),
        ("sampling.retriever_depth", "at least 1", s.retriever_depth >= 1),
        ("sampling.retriever_margin", "above 0", s.retriever_margin > 0),
        ("sampling.max_users", "at least 1, or null", s.max_users is None or s.max_users >= 1),
    ]


def _model_ranges(m: ModelConfig) -> list[Range]:
    return [
        ("model.max_length", "at least 16", m.max_length >= 16),
        ("model.layers", "at least 1, or null", m.layers is None or m.layers >= 1),
        (
            "model.dropout",
            "from 0 to below 1, or null",
            m.dropout is None or 0 <= m.dropout < 1,
        ),
    ]


def _trainer_ranges(t: TrainerConfig) -> list[Range]:
    return [
        ("trainer.epochs", "above 0", t.epochs > 0),
        ("trainer.max_steps", "at least 1, or null", t.max_steps is None or t.max_steps >= 1),
        ("trainer.teacher_weight", "at least 0", t.teacher_weight >= 0),
        ("trainer.pos_weight", "above 0", t.pos_weight > 0),
        ("trainer.batch_size", "at least 1", t.batch_size >= 1),
        ("trainer.group_size", "at least 2", t.group_size >= 2),
        ("trainer.batch_tokens", "at least 1", t.batch_tokens >= 1),
        ("trainer.learning_rate", "above 0", t.learning_rate > 0),
        (
            "trainer.head_learning_rate",
            "above 0, or null",
            t.head_learning_rate is None or t.head_learning_rate > 0,
        ),
        ("trainer.freeze_body_fraction", "from 0 to 1", 0 <= t.freeze_body_fraction <= 1),
        ("trainer.weight_decay", "at least 0", t.weight_decay >= 0),
        (
            "trainer.max_grad_norm",
            "above 0, or null",
            t.max_grad_norm is None or t.max_grad_norm > 0,
        ),
        ("trainer.warmup_fraction", "from 0 to below 1", 0 <= t.warmup_fraction < 1),
        (
            "trainer.warmup_steps",
            "at least 0, or null",
            t.warmup_steps is None or t.warmup_steps >= 0,
        ),
        ("trainer.n_evaluations", "at least 1", t.n_evaluations >= 1),
        (
            "trainer.evaluation_steps",
            "at least 1, or null",
            t.evaluation_steps is None or t.evaluation_steps >= 1,
        ),
        ("trainer.patience", "at least 1, or null", t.patience is None or t.patience >= 1),
        ("trainer.log_steps", "at least 1", t.log_steps >= 1),
    ]


def _eval_ranges(e: EvalConfig) -> list[Range]:
    return [
        ("eval.n_candidates", "at least 2", e.n_candidates >= 2),
        (
            "eval.max_positives",
            "at least 1 and below eval.n_candidates",
            1 <= e.max_positives < e.n_candidates,
        ),
        ("eval.max_users", "at least 2, or null", e.max_users is None or e.max_users >= 2),
        (
            "eval.max_dev_users",
            "at least 1, or null",
            e.max_dev_users is None or e.max_dev_users >= 1,
        ),
        (
            "eval.cutoffs",
            "distinct ranks of at least 1",
            min(e.cutoffs, default=0) >= 1 and len(set(e.cutoffs)) == len(e.cutoffs),
        ),
        ("eval.ease_books", "at least 2", e.ease_books >= 2),
        ("eval.max_check_users", "at least 2", e.max_check_users >= 2),
        ("eval.n_bootstrap", "at least 100", e.n_bootstrap >= 100),
    ]


def _check_combinations(c: Config) -> None:
    _check_data(c.data, c.seed)
    _check_engine(c.engine)
    if c.data.text_features and c.sampling.context == "leave_one_out":
        raise ConfigError(
            f"data.text_features={c.data.text_features} with sampling.context=leave_one_out: the "
            "features of a positive would be computed from a context side that contains it, and "
            "would give its label away. Set sampling.context=holdout, or data.text_features=[]."
        )
    _check_mix(c.sampling)
    _check_files(c)
    if c.data.rating_range is None and c.sampling.mix.disliked > 0:
        raise ConfigError(
            f"sampling.mix.disliked={c.sampling.mix.disliked} draws books with a low rating, but "
            "data.rating_range=null reads no ratings. Give this share to another source of "
            "negatives."
        )
    _check_eval(c.eval)
    _check_model(c.model)
    _check_trainer(c.trainer)
    _check_baseline_teacher(c)


def _check_data(d: DataConfig, seed: int) -> None:
    check_storage(d.root, d.storage)
    if d.dev_fraction + d.test_fraction >= 1:
        raise ConfigError(
            f"data.dev_fraction={d.dev_fraction} and data.test_fraction="
            f"{d.test_fraction} leave no train users; their sum must be below 1."
        )
    if d.name not in ("demo", "pairs") and d.root is None:
        raise ConfigError(
            f"data={d.name} reads its files from data.root, which is null; "
            "set data.root=FOLDER or s3://BUCKET/PREFIX."
        )
    # The seed of the world may follow the run's.
    if d.name != "demo" and d.world not in (WorldConfig(), WorldConfig(seed=seed)):
        raise ConfigError(
            f"data.world.* belongs to data=demo; data={d.name} reads real ratings. "
            "Leave it at its defaults."
        )
    if d.name in ("demo", "pairs") and d.root is not None:
        own = "generates its own tables" if d.name == "demo" else "reads sampling.path only"
        raise ConfigError(f"data.root={d.root!r} belongs to real data; data={d.name} {own}.")
    _check_ratings(d)
    _check_authors(d)


def _check_ratings(d: DataConfig) -> None:
    if d.name != "bookdb" and (d.rating_range, d.zero_rating) not in (
        (DataConfig().rating_range, "error"),
        (None, "error"),
    ):
        raise ConfigError(
            f"data.rating_range={d.rating_range} and data.zero_rating={d.zero_rating} belong to "
            f"data=bookdb; the ratings of data={d.name} are stars from 1 to 5. Leave both at "
            "their defaults, or set data.rating_range=null to read no ratings."
        )
    if d.rating_range is None:
        if d.zero_rating != "error":
            raise ConfigError(
                f"data.zero_rating={d.zero_rating} with data.rating_range=null: no ratings are "
                "read. Leave data.zero_rating at error, or set data.rating_range."
            )
        return
    if len(d.rating_range) != 2 or not 0 <= d.rating_range[0] < d.rating_range[1]:
        raise ConfigError(
            f"data.rating_range={d.rating_range} is impossible; it must be [LOWEST,HIGHEST], "
            "both at least 0 and in ascending order, or null."
        )
    low, high = d.rating_range
    if not low <= d.positive_rating <= high:
        raise ConfigError(
            f"data.positive_rating={d.positive_rating} is outside data.rating_range="
            f"{d.rating_range}; no rating or every rating would be a positive."
        )
    if d.zero_rating == "rating" and low > 0:
        raise ConfigError(
            f"data.zero_rating=rating with data.rating_range={d.rating_range}: 0 is outside the "
            "range. Let the range begin at 0, or choose unrated or error."
        )


def _check_files(c: Config) -> None:
    """Check the keys of pairs that are given as files."""
    s = c.sampling
    if s.path is None:
        if c.data.name == "pairs":
            raise ConfigError("data=pairs reads the pairs of sampling.path, which is null; set it.")
        if "refine" in c.stages:
            raise ConfigError(
                "stages: refine refines the pairs of sampling.path, which is null. Set it, or "
                "leave refine out: generated pairs are refined by the stage pairs."
            )
        if s.parts is not None:
            raise ConfigError("sampling.parts chooses parts of sampling.path, which is null.")
    elif s.regenerate:
        raise ConfigError(
            f"sampling.regenerate=true with sampling.path={s.path!r}: given pairs are not "
            "generated. Leave one of them out."
        )
    elif c.trainer.teacher in BASELINES:
        raise ConfigError(
            f"trainer.teacher={c.trainer.teacher} with sampling.path: a baseline scores generated "
            "pairs only. Choose a model as the teacher."
        )
    if s.regenerate and "pairs" not in c.stages:
        raise ConfigError(f"sampling.regenerate=true needs the stage pairs; stages={c.stages}.")
    if c.data.name == "pairs" and c.data.text_features:
        raise ConfigError(
            f"data.text_features={c.data.text_features} needs ratings, which data=pairs does not "
            "have. Set data.text_features=[]."
        )


def _check_engine(e: EngineConfig) -> None:
    if (e.scheduler == "cluster") != (e.address is not None):
        raise ConfigError(
            f"engine.scheduler={e.scheduler} with engine.address={e.address!r}: "
            "engine=cluster needs the address of a running Dask scheduler "
            "(engine.address=tcp://HOST:PORT), and no other scheduler takes an address."
        )


def _check_eval(e: EvalConfig) -> None:
    if 10 not in e.cutoffs:
        raise ConfigError(
            f"eval.cutoffs={e.cutoffs} lacks 10; ndcg_10 is the headline metric and chooses "
            "the checkpoint."
        )
    if "retriever" in e.list_kinds and e.retriever not in e.baselines:
        raise ConfigError(
            f"eval.list_kinds has retriever lists, whose order is the baseline {e.retriever}, "
            f"but eval.baselines={e.baselines} lacks it; add it."
        )


def _check_trainer(t: TrainerConfig) -> None:
    if t.pos_weight != 1 and t.loss != "bce":
        raise ConfigError(
            f"trainer.pos_weight={t.pos_weight} belongs to trainer.loss=bce, "
            f"but trainer.loss={t.loss}."
        )
    uses_teacher = t.loss in ON_SCORES or t.teacher_weight > 0
    if (t.teacher is not None) != uses_teacher or (t.loss in ON_SCORES and t.teacher_weight > 0):
        raise ConfigError(
            f"trainer.loss={t.loss} with trainer.teacher={t.teacher} and trainer.teacher_weight="
            f"{t.teacher_weight}: margin_mse and mse learn only the teacher's scores, so they need "
            "a teacher and trainer.teacher_weight=0. Every other loss learns the labels; it needs "
            "a teacher exactly when trainer.teacher_weight is above 0. A teacher is "
            "models:/NAME@ALIAS, a folder of weights or a baseline."
        )
    if t.stop_below_start and t.evaluation_steps is None and t.n_evaluations < 2:
        raise ConfigError(
            "trainer.stop_below_start=true compares from the second evaluation on, but "
            f"trainer.n_evaluations={t.n_evaluations}; set it to at least 2."
        )


def _check_baseline_teacher(c: Config) -> None:
    name = c.trainer.teacher
    if name not in BASELINES:
        return
    if name not in TEACHERS:
        raise ConfigError(
            f"trainer.teacher={name}: this baseline is built from all ratings, which include the "
            f"labels of the training pairs. Choose one of {', '.join(TEACHERS)}, or a model."
        )
    if c.sampling.context == "leave_one_out":
        raise ConfigError(
            f"trainer.teacher={name} with sampling.context=leave_one_out: a baseline scores with "
            "one context per user, which contains the positives. Set sampling.context=holdout, or "
            "choose a model."
        )
    if name == "features_lr" and not c.data.text_features:
        raise ConfigError(
            "trainer.teacher=features_lr with data.text_features=[]: it scores by the numeric "
            f"features of the texts. Choose some of {', '.join(TEXT_FEATURES)}, or name another "
            "teacher."
        )


def _check_model(m: ModelConfig) -> None:
    needs = {
        "hub": ("hub_id", "revision"),
        "wheel": ("package", "sha256"),
        "path": ("path",),
        "registered": ("uri",),
        "random": (),
    }[m.source]
    for name in needs:
        if getattr(m, name) is None:
            raise ConfigError(f"model.source={m.source} needs model.{name}, which is null.")
    if m.uri is not None and m.source != "registered":
        raise ConfigError(
            f"model.uri={m.uri!r} belongs to model=registered, but model.source={m.source}. Add "
            "model=registered, or leave model.uri out."
        )


def _check_authors(d: DataConfig) -> None:
    shown = "authors" in [part.field for part in templates.parse_context(d.context_template)]
    if shown != (d.context_authors > 0):
        raise ConfigError(
            f"data.context_authors={d.context_authors} with data.context_template="
            f"{d.context_template!r}: contexts show authors if the template has {{authors}} and "
            "data.context_authors is above 0. Set both or neither."
        )


def _check_mix(s: SamplingConfig) -> None:
    shares = dataclasses.asdict(s.mix)
    if s.strategy != "mix" and any(shares.values()):
        raise ConfigError(
            f"sampling.mix={shares} belongs to sampling.strategy=mix, "
            f"but sampling.strategy={s.strategy}."
        )
    if s.strategy == "mix" and (min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-9):
        raise ConfigError(f"sampling.mix={shares}: shares must be at least 0 and add up to 1.")
