"""Names of earlier versions, and what replaced each of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from reranker.config.foreign_names import foreign_message
from reranker.errors import ConfigError

# Old key -> new key.
KEYS = {"eval.kinds": "eval.list_kinds"}

# Key -> old value -> new value. Where the key holds a list, these are its members.
VALUES = {
    "sampling.context": {"split": "holdout"},
    "eval.list_kinds": {"seed": "bookdb"},
    "eval.baselines": {"numbers": "features_lr"},
    "trainer.teacher": {"numbers": "features_lr"},
}

# Group -> old preset -> new preset.
PRESETS = {"eval": {"seed_protocol": "bookdb_protocol"}}

# Old on/off key -> members of the list data.text_features.
FEATURES = "data.text_features"
SWITCHES = {
    "data.shows_ratings": ["ease"],
    "data.shows_match": ["authors", "genres"],
    "data.shows_readers": ["readers"],
}


def pairs() -> list[tuple[str, str]]:
    """Return every old name with its new name, as they are written on the command line."""
    switches = [(f"{key}=true", f"{FEATURES}=[{','.join(new)}]") for key, new in SWITCHES.items()]
    values = [
        (f"{key}={old}", f"{key}={new}")
        for key, names in (VALUES | PRESETS).items()
        for old, new in names.items()
    ]
    return [*KEYS.items(), *switches, *values]


def key_message(key: str) -> str | None:
    """Return what replaced a key of an earlier version, or None for any other key."""
    if key in KEYS:
        return f"{key} was renamed to {KEYS[key]}."
    if key in SWITCHES:
        return (
            f"{key} was replaced by the list {FEATURES}; {key}=true is now "
            f"{FEATURES}=[{','.join(SWITCHES[key])}], and {key}=false leaves them out."
        )
    return None


def preset_message(group: str, preset: object) -> str | None:
    """Return the new name of a preset of an earlier version, or None for any other preset."""
    new = PRESETS.get(group, {}).get(str(preset))
    return f"{group}={preset} was renamed to {group}={new}." if new else None


def check_values(key: str, values: Iterable[object]) -> None:
    """Refuse a value that has a new name.

    Raises:
        ConfigError: The key, the old value and the new one.
    """
    new = VALUES.get(key, {})
    for value in values:
        if isinstance(value, str) and value in new:
            raise ConfigError(f"{key}: {value!r} was renamed to {new[value]!r}.")


def explain(error: BaseException | None) -> str | None:
    """Return what replaced the key or preset that Hydra did not find, or None.

    The message starts with the YAML file that has an old key.
    """
    text = str(error)
    if found := re.search(r"^\s*full_key: (\S+)$", text, re.MULTILINE):
        message = key_message(found[1]) or foreign_message(found[1])
        file = re.match(r"In '[^']+': ", text)
        return f"{file[0] if file else ''}{message}" if message else None
    if found := re.search(r"Could not find '(\w+)/(\w+)'", text):
        return preset_message(found[1], found[2])
    return None


def migrate(config: dict[str, Any]) -> None:
    """Replace old keys and values in a stored config (nested mappings), in place.

    A key of this version is never overwritten.
    """
    for old, new in KEYS.items():
        if (value := _pop(config, old)) is not None:
            _set(config, new, value)
    switches = {key: _pop(config, key) for key in SWITCHES}
    if set(switches.values()) != {None}:
        members = [member for key, on in switches.items() if on for member in SWITCHES[key]]
        _set(config, FEATURES, members)
    for key, names in VALUES.items():
        if (value := _pop(config, key)) is not None:
            _set(config, key, _replace(value, names))


def _replace(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_replace(member, names) for member in value]
    return names.get(value, value) if isinstance(value, str) else value


def _group(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Return the mapping that holds a key such as `eval.kinds`, and the key's last part."""
    group, _, name = key.partition(".")
    holder = config.get(group)
    return (holder if isinstance(holder, dict) else {}), name


def _pop(config: dict[str, Any], key: str) -> Any:
    holder, name = _group(config, key)
    return holder.pop(name, None)


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    holder, name = _group(config, key)
    holder.setdefault(name, value)
