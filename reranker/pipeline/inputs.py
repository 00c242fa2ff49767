"""Load what training and evaluation read: the corpus, the candidate lists and the pairs."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reranker.cache import Cache
from reranker.config import PAIRS_BASELINES, Config
from reranker.errors import DataError

if TYPE_CHECKING:
    from reranker.data import Corpus
    from reranker.eval import EvalSet
    from reranker.sampling import GivenPairs, Pairs, PairsCorpus
    from reranker.tracking import RunLog

# Stage of a run -> the folders of the cache that it builds.
BUILDS = {
    "tables": ("world", "ucsd", "goodbooks", "bookdb_features", "tables"),
    "pairs": ("pairs",),
}
LISTED = {"pairs", "train", "evaluate"}  # stages that need candidate lists
NO_RATINGS = (
    "data=pairs has no ratings, no catalogue and no timestamps, so {} baselines are not scored: {}"
)
BY_PAIR = (
    "sampling.split_by=pair: users of the test pairs also have training pairs, so the metrics are "
    "those of known users and too good for new ones; sampling.split_by=user has no such leak"
)


@dataclass
class Inputs:
    """The inputs of the stages of a run.

    Attributes:
        cfg: The configuration, without the settings that the data does not allow.
        corpus: None if only the stage refine runs.
        dev, test: None if no stage needs candidate lists.
        pairs: None if no stage needs them.
        audit: Rows that the audit checked, by check.
    """

    cfg: Config
    corpus: Corpus | None = None
    dev: EvalSet | None = None
    test: EvalSet | None = None
    pairs: Pairs | GivenPairs | None = None
    audit: dict[str, int] = field(default_factory=dict)

    def sets(self) -> tuple[Corpus, EvalSet, EvalSet]:
        """Return the corpus, the dev set and the test set of a run that trains or evaluates."""
        assert self.corpus is not None and self.dev is not None and self.test is not None
        return self.corpus, self.dev, self.test


def required(cfg: Config, overrides: Sequence[str]) -> dict[str, str]:
    """Return the folders of the cache that this run may not build -> what to do.

    Args:
        overrides: Those of the command line, for the command that builds what is missing.
    """
    own = [word for word in overrides if not word.startswith("stages=")]
    return {
        folder: f"Run this first: python main.py {shlex.join([*own, f'stages={stage}'])}"
        for stage, folders in BUILDS.items()
        if stage not in cfg.stages
        for folder in folders
    }


def load(cfg: Config, log: RunLog, cache: Cache) -> Inputs:
    """Load or build the inputs of the stages `cfg.stages`.

    Raises:
        DataError: An input is missing, or no pair is left.
        LeakError: A label is visible in its own input.
    """
    from reranker import sampling

    given = None
    if cfg.sampling.path is not None and (cfg.data.name == "pairs" or _needs_pairs(cfg)):
        name = "refine" if (refined := "refine" in cfg.stages) else "read"
        given = log.stage(name, sampling.load_given, cfg.sampling, cache, refined=refined)
        counts = log.stage("audit", sampling.audit_given, given)
        log.counts("given", counts)
        log.warn(sampling.given_warnings(counts, given.counts["positives"]))
    if cfg.stages == ["refine"]:
        return Inputs(cfg, pairs=given)
    if cfg.data.name == "pairs" and given is not None:
        return _from_pairs(cfg, given, log, cache)
    return _from_tables(cfg, given, log, cache)


def _needs_pairs(cfg: Config) -> bool:
    """Return whether a stage reads pairs; an evaluation fits only features_lr to them."""
    fits = bool(cfg.data.text_features) and "features_lr" in cfg.eval.baselines
    return bool({"pairs", "refine", "train"} & set(cfg.stages)) or (
        fits and "evaluate" in cfg.stages
    )


def _from_tables(cfg: Config, given: GivenPairs | None, log: RunLog, cache: Cache) -> Inputs:
    """Return the inputs for a data source with ratings."""
    from reranker import data, eval, sampling

    corpus = log.stage("tables", data.load, cfg.data, cache, ease_books=cfg.eval.ease_books)
    found = Inputs(cfg, corpus)
    if not LISTED & set(cfg.stages):
        return found
    dev, test = log.stage("lists", eval.build_sets, corpus, cfg.eval, cache)
    log.candidate_lists(dev, test)
    pairs = None
    if given is not None:
        held_out = _held_out_users(given, corpus, cfg)
        found.pairs = log.stage("pairs", sampling.without_users, given, held_out, cache)
    elif _needs_pairs(cfg):
        args = (corpus, cfg.sampling, cfg.engine, cache)
        found.pairs = pairs = log.stage("pairs", sampling.build_pairs, *args)
    found.audit = log.stage("audit", sampling.audit, corpus, pairs, dev.rows, test.rows)
    log.counts("audit", found.audit)
    found.dev, found.test = dev, test
    return found


def _held_out_users(given: GivenPairs, corpus: Corpus, cfg: Config) -> list[str]:
    """Return the ids of the dev and test users; raise if the file has no user of this source."""
    users = corpus.tables.users
    theirs = set(given.read()["user_id"].astype(str))
    if theirs.isdisjoint(users["user_id"]):
        raise DataError(
            f"sampling.path={cfg.sampling.path}: none of its {len(theirs)} users is a user of "
            f"data={cfg.data.name}, whose {len(users)} users the evaluation ranks books for. "
            "Choose the data that the pairs were made from, or data=pairs, which evaluates on "
            "held-out users of the file."
        )
    return users["user_id"][users["split"] != "train"].tolist()


def _from_pairs(cfg: Config, given: GivenPairs, log: RunLog, cache: Cache) -> Inputs:
    """Return the inputs for data=pairs: everything comes from the files of sampling.path."""
    from reranker import sampling

    if cfg.sampling.split_by == "pair":
        log.warn([BY_PAIR])
    split = log.stage("tables", sampling.split_pairs, given, cfg.data, cfg.sampling, cache)
    kept = [name for name in cfg.eval.baselines if name in PAIRS_BASELINES]
    off = [name for name in cfg.eval.baselines if name not in PAIRS_BASELINES]
    if off:
        log.warn([NO_RATINGS.format(len(off), ", ".join(off))])
    settings = dataclasses.replace(cfg.eval, list_kinds=[sampling.GIVEN_KIND], baselines=kept)
    cfg = dataclasses.replace(cfg, eval=settings)
    dev, test = (_eval_set(split, cfg, name) for name in ("dev", "test"))
    log.candidate_lists(dev, test)
    return Inputs(cfg, split.corpus, dev, test, split.pairs)


def _eval_set(split: PairsCorpus, cfg: Config, name: str) -> EvalSet:
    """Return the held-out candidates of a split, of at most max_users or max_dev_users users."""
    from reranker import eval

    limit = cfg.eval.max_users if name == "test" else cfg.eval.max_dev_users
    tables, rows = split.corpus.tables, split.lists[name]
    users = eval.choose_users(rows["user"].unique(), tables, limit, cfg.eval.seed)
    rows = rows[rows["user"].isin(users)].reset_index(drop=True)
    counts = {"users": len(users), "rows": len(rows), "positives": int(rows["label"].sum())}
    lists = eval.CandidateLists(rows, eval.digest_lists(rows, tables), name, split.hit, counts)
    return eval.EvalSet(split.corpus, lists, cfg.eval)
