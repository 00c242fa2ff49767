"""Which runs are one configuration under several seeds, and what tells configurations apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MAX_VALUE = 40  # characters of a value in a name
ABSENT = "\N{EN DASH}"  # the value of a key that a run has not

Params = Mapping[str, str]


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in nothing but seeds.

    Attributes:
        name: What tells it from the others: `model.name=bge sampling.neg_ratio=5`.
        settings: The same as key -> value; keys that change together are one, `sampling.mix, sampling.strategy`.
        run_ids: Of its runs, in the order of their seeds.
        seeds: (n_runs,) the seeds that vary, `trainer.seed=1`; empty texts where none does.
    """

    name: str
    settings: dict[str, str]
    run_ids: tuple[str, ...]
    seeds: tuple[str, ...]


def configurations(params: Mapping[str, Params]) -> list[Configuration]:
    """The configurations of runs, in the order of their first runs.

    Params whose key ends in `.seed`, and the seed in the name of random weights, do not tell configurations apart.
    A run that was made twice, seeds and all, counts as another configuration: it was run again for a reason. Where
    seeds alone vary, each run stands for itself, for else there is nothing to compare.

    Args:
        params: Run id -> the params that it logged.
    """
    groups = _groups(params)
    if len(groups) == 1:
        groups = [[run_id] for run_id in params]
        plain = {run_id: dict(p) for run_id, p in params.items()}
    else:
        plain = {run_id: _without_seeds(p) for run_id, p in params.items()}
    firsts = [plain[group[0]] for group in groups]
    keys = _varying(firsts)
    own = [{key: first.get(key, ABSENT) for key in keys} for first in firsts]
    names = _names(own, [group[0] for group in groups])
    seeds = [key for key in _varying(list(params.values())) if _is_seed(key)]
    assigned = [{run_id: _assigned(params[run_id], seeds) for run_id in group} for group in groups]
    return list(map(_configuration, names, _merged(own), assigned))


def differ_in_seeds_alone(params: Mapping[str, Params]) -> bool:
    """Whether the runs are one configuration under different seeds."""
    return len(_groups(params)) == 1


def _configuration(name: str, settings: dict[str, str], seeds: Mapping[str, str]) -> Configuration:
    run_ids = sorted(seeds, key=lambda run_id: seeds[run_id])
    return Configuration(name, settings, tuple(run_ids), tuple(seeds[run_id] for run_id in run_ids))


def _groups(params: Mapping[str, Params]) -> list[list[str]]:
    groups: dict[object, list[str]] = {}
    times: Counter[object] = Counter()
    for run_id, given in params.items():
        everything = frozenset(given.items())
        times[everything] += 1
        groups.setdefault((frozenset(_without_seeds(given).items()), times[everything]), []).append(
            run_id
        )
    return list(groups.values())


def _is_seed(key: str) -> bool:
    return key.rsplit(".", 1)[-1] == "seed"


def _without_seeds(params: Params) -> dict[str, str]:
    return {
        key: re.sub(r"^random seed \d+$", "random", v)
        for key, v in params.items()
        if not _is_seed(key)
    }


def _varying(params: Sequence[Params]) -> list[str]:
    """The keys that differ, names first; `model.source` is left out where the model's name says it."""
    keys = sorted(
        {key for p in params for key in p}, key=lambda key: (not key.endswith(".name"), key)
    )
    varying = [key for key in keys if len({p.get(key) for p in params}) > 1]
    sources = {(p.get("model.name"), p.get("model.source")) for p in params}
    said = len({name for name, _ in sources}) == len(sources)
    return [key for key in varying if key != "model.source" or not said]


def _merged(own: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The settings with keys that split the configurations alike as one key: their effects cannot be told apart."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for key in own[0]:
        values = [setting[key] for setting in own]
        alike.setdefault(tuple(map(values.index, values)), []).append(key)
    return [
        {", ".join(keys): ", ".join(_short(s[key]) for key in keys) for keys in alike.values()}
        for s in own
    ]


def _names(own: Sequence[Mapping[str, str]], run_ids: Sequence[str]) -> list[str]:
    names = [
        " ".join(f"{key}={_short(value)}" for key, value in setting.items()) for setting in own
    ]
    times = Counter(names)
    return [
        name if times[name] == 1 else f"{name} run {run_id[:8]}".strip()
        for name, run_id in zip(names, run_ids, strict=True)
    ]


def _assigned(params: Params, keys: Iterable[str]) -> str:
    return " ".join(f"{key}={params.get(key, ABSENT)}" for key in keys)


def _short(value: str) -> str:
    return value if len(value) <= MAX_VALUE else f"{value[: MAX_VALUE - 1]}…"
