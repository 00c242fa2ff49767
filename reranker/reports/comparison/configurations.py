"""Group runs into configurations: runs that differ only in seeds are one configuration."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MAX_VALUE = 40  # characters of a value in a name
ABSENT = "\N{EN DASH}"  # shown if a run does not have a key

Params = Mapping[str, str]


@dataclass(frozen=True)
class Configuration:
    """Runs that differ only in seeds.

    Attributes:
        name: Its settings as text: `model.name=bge sampling.neg_ratio=5`.
        settings: Key -> value of the keys that differ between configurations. Keys that change
            together are one entry, `sampling.mix, sampling.strategy`.
        run_ids: (n_runs,) its runs, sorted by seed.
        seeds: (n_runs,) the seeds that vary, `trainer.seed=1`; empty texts if none varies.
    """

    name: str
    settings: dict[str, str]
    run_ids: tuple[str, ...]
    seeds: tuple[str, ...]


def configurations(params: Mapping[str, Params]) -> list[Configuration]:
    """Return the configurations of runs, in the order of their first runs.

    Params whose key ends in `.seed`, and the seed in the name of random weights, do not
    distinguish configurations. Two runs with identical params, including seeds, count as two
    configurations. If only seeds vary, each run is a separate configuration. A seed that equals
    `seed` in every run follows it, and is not shown.

    Args:
        params: Run id -> the params that it logged.

    Example:
        >>> runs = {"a": {"sampling.neg_ratio": "3"}, "b": {"sampling.neg_ratio": "5"}}
        >>> [c.name for c in configurations(runs)]
        ['sampling.neg_ratio=3', 'sampling.neg_ratio=5']
    """
    params = _without_followers(params)
    groups = _groups(params)
    if len(groups) == 1:
        groups = [[run_id] for run_id in params]
        plain = {run_id: dict(p) for run_id, p in params.items()}
    else:
        plain = {run_id: _without_seeds(p) for run_id, p in params.items()}
    firsts = [plain[group[0]] for group in groups]
    keys = _varying(firsts)
    settings = [{key: first.get(key, ABSENT) for key in keys} for first in firsts]
    names = _names(settings, [group[0] for group in groups])
    seeds = [key for key in _varying(list(params.values())) if _is_seed(key)]
    assigned = [{run_id: _assigned(params[run_id], seeds) for run_id in group} for group in groups]
    return list(map(_configuration, names, _merged(settings), assigned))


def differ_only_in_seeds(params: Mapping[str, Params]) -> bool:
    """Return whether the runs are one configuration with different seeds."""
    return len(_groups(params)) == 1


def _configuration(name: str, settings: dict[str, str], seeds: Mapping[str, str]) -> Configuration:
    run_ids = sorted(seeds, key=lambda run_id: seeds[run_id])
    return Configuration(name, settings, tuple(run_ids), tuple(seeds[run_id] for run_id in run_ids))


def _groups(params: Mapping[str, Params]) -> list[list[str]]:
    groups: dict[object, list[str]] = {}
    times: Counter[object] = Counter()
    for run_id, logged in params.items():
        everything = frozenset(logged.items())
        times[everything] += 1
        group = frozenset(_without_seeds(logged).items()), times[everything]
        groups.setdefault(group, []).append(run_id)
    return list(groups.values())


def _without_followers(params: Mapping[str, Params]) -> dict[str, dict[str, str]]:
    """Return the params without the seeds that equal `seed` in every run."""
    own = {key for p in params.values() for key in p if _is_seed(key)} - {"seed"}
    follows = {key for key in own if all(p.get(key) == p.get("seed") for p in params.values())}
    return {
        run_id: {key: value for key, value in p.items() if key not in follows}
        for run_id, p in params.items()
    }


def _is_seed(key: str) -> bool:
    return key.rsplit(".", 1)[-1] == "seed"


def _without_seeds(params: Params) -> dict[str, str]:
    kept = {key: value for key, value in params.items() if not _is_seed(key)}
    return {key: re.sub(r"^random seed \d+$", "random", value) for key, value in kept.items()}


def _varying(params: Sequence[Params]) -> list[str]:
    """Return the keys that differ, names first; `model.source` only if names are ambiguous."""
    present = {key for p in params for key in p}
    keys = sorted(present, key=lambda key: (not key.endswith(".name"), key))
    varying = [key for key in keys if len({p.get(key) for p in params}) > 1]
    sources = {(p.get("model.name"), p.get("model.source")) for p in params}
    is_implied = len({name for name, _ in sources}) == len(sources)
    return [key for key in varying if key != "model.source" or not is_implied]


def _merged(settings: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Merge the keys that split the configurations alike: their effects cannot be separated."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for key in settings[0]:
        values = [setting[key] for setting in settings]
        alike.setdefault(tuple(map(values.index, values)), []).append(key)
    return [
        {", ".join(keys): ", ".join(_short(s[key]) for key in keys) for keys in alike.values()}
        for s in settings
    ]


def _names(settings: Sequence[Mapping[str, str]], run_ids: Sequence[str]) -> list[str]:
    pairs = [[f"{key}={_short(value)}" for key, value in s.items()] for s in settings]
    names = [" ".join(pair) for pair in pairs]
    times = Counter(names)
    return [
        name if times[name] == 1 else f"{name} run {run_id[:8]}".strip()
        for name, run_id in zip(names, run_ids, strict=True)
    ]


def _assigned(params: Params, keys: Iterable[str]) -> str:
    return " ".join(f"{key}={params.get(key, ABSENT)}" for key in keys)


def _short(value: str) -> str:
    return value if len(value) <= MAX_VALUE else f"{value[: MAX_VALUE - 1]}…"
