"""Translate the names in runs of earlier versions, so that these runs compare with new ones."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from reranker.config.renamed import FEATURES, KEYS, SWITCHES, VALUES
from reranker.config.schema import added_defaults
from reranker.tracking.metric_names import plain

SCORERS = {"before": "untrained", **VALUES["eval.baselines"]}
LIST_KINDS = VALUES["eval.list_kinds"]


def rename_params(params: Mapping[str, str]) -> dict[str, str]:
    """Return the params of a run under today's keys and with today's values.

    A key that was added later is left out at its default, so that runs with and without it agree.

    Example:
        >>> rename_params({"eval.kinds": "uniform,seed"})
        {'eval.list_kinds': 'uniform,bookdb'}
    """
    out = {KEYS.get(key, key): value for key, value in params.items() if key not in SWITCHES}
    for key, names in VALUES.items():
        if key in out:
            out[key] = ",".join(names.get(value, value) for value in out[key].split(","))
    if any(key in params for key in SWITCHES):
        members = [names for key, names in SWITCHES.items() if params.get(key) == "True"]
        out.setdefault(FEATURES, ",".join(name for names in members for name in names))
    if any(key.endswith(".seed") for key in out):
        out.setdefault("seed", "0")  # every seed was 0 unless it was set
    # Earlier runs do not have these params.
    for key, default in added_defaults().items():
        if out.get(key) == plain(default):
            del out[key]
    if FEATURES in out:
        # The order of the features has no effect.
        out[FEATURES] = ",".join(sorted(out[FEATURES].split(",")))
    return out


def rename_hash(name: str) -> str:
    """Return today's name of a hash: `lists/test/seed` is `lists/test/bookdb`."""
    prefix, _, kind = name.rpartition("/")
    return f"{prefix}/{LIST_KINDS[kind]}" if kind in LIST_KINDS else name


def rename_rows(per_user: pd.DataFrame) -> pd.DataFrame:
    """Return per-user values with today's names of scorers and list kinds."""
    scorer, kind = per_user["scorer"].replace(SCORERS), per_user["kind"].replace(LIST_KINDS)
    return per_user.assign(scorer=scorer, kind=kind)
