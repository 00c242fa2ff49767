"""Build the typed configuration from Hydra's overrides and YAML files."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reranker.config import locations, renamed
from reranker.config.checks import validate
from reranker.config.foreign_names import foreign_message
from reranker.config.locations import CONFIGS
from reranker.config.schema import GROUPS, MODEL_URI, SEEDS, STAGES, Config, ModelConfig
from reranker.errors import ConfigError


def register() -> None:
    """Register the schema, the search path and the resolver `${project_root:}`.

    Call it before `hydra.main`. The resolver keeps its folder if the working directory changes. In
    the registered schema the keys SEEDS are `${seed}`, so that they follow it unless a preset, a
    file or the command line sets them.
    """
    root = str(locations.project_root())
    OmegaConf.register_new_resolver("project_root", lambda: root, replace=True)
    locations.register()
    schema = OmegaConf.structured(Config)
    for key in SEEDS:
        OmegaConf.update(schema, key, "${seed}")
    ConfigStore.instance().store(name="base_schema", node=schema)


def canonical(args: Sequence[str]) -> list[str]:
    """Return command-line arguments with `experiments=NAME` in place of `experiment=NAME`.

    Many Hydra projects call this group `experiment` and append it: `+experiment=NAME`.
    """
    return [re.sub(r"^\+{0,2}experiments?=", "experiments=", arg) for arg in args]


def compose(overrides: Sequence[str] = ()) -> Config:
    """Return the configuration that `main.py` has with these overrides.

    Hydra's output folders and logging are not set up.

    Example:
        cfg = compose(["data=demo", "trainer.epochs=2"])

    Raises:
        ConfigError: An unknown key or preset, or a value of the wrong type or outside its range.
    """
    register()
    given = canonical(overrides)
    check_overrides(given)
    try:
        with hydra.initialize_config_dir(str(CONFIGS / "conf"), version_base="1.3"):
            return from_hydra(hydra.compose("config", overrides=given))
    except HydraException as error:
        message = renamed.explain(error) or f"{error} {error.__cause__ or ''}"
        raise ConfigError(" ".join(message.split())) from error


def check_overrides(args: list[str]) -> None:
    """Refuse command-line keys that the schema does not have.

    Hydra's own flags and keys (`-m`, `hydra.*`) are not checked.

    Raises:
        ConfigError: `sampling.neg_rato=3` (the message has the nearest key and all choices),
            `eval.kinds=[uniform]` (the message has the key's new name), `experiments=null`.
    """
    overrides = [a for a in args if "=" in a and not a.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise ConfigError(
            f"{error.override}: not an override of the form key=value ({error})"
        ) from error
    for override in parsed:
        if re.split(r"[./]", override.key_or_group)[0] != "hydra" and not override.is_delete():
            _check_override(override)


def _check_override(override: Override) -> None:
    key = override.key_or_group
    secret = re.search("secret|password|token|key|credential", key.rsplit(".", 1)[-1])
    _check_key(key.replace("/", "."), f"{key}=***" if secret else str(override.input_line))
    if key not in GROUPS:
        return
    value = override.value()
    # Hydra reports a number in place of a preset's name with a traceback only.
    if isinstance(value, int | float | None):
        raise ConfigError(
            f"{override.input_line!r}: {key} takes the name of a preset; "
            "python main.py --help lists them."
        )
    for preset in value.list if isinstance(value, ChoiceSweep) else [value]:
        if message := renamed.preset_message(key, preset):
            raise ConfigError(message)


def _check_key(key: str, override: str) -> None:
    if message := renamed.key_message(key):
        raise ConfigError(message)
    node: Any = Config
    for i, part in enumerate(key.split(".")):
        fields = get_type_hints(node) if dataclasses.is_dataclass(node) else {}
        if part not in fields:
            if message := foreign_message(key):
                raise ConfigError(message)
            prefix = ".".join(key.split(".")[:i])
            raise ConfigError(f"{override!r}: {_unknown(key, prefix, list(fields))}")
        if get_origin(fields[part]) is dict:
            return  # users may add keys to a mapping: data.genres.fantasy
        types = getattr(fields[part], "__args__", [fields[part]])
        node = next((t for t in types if t is not type(None)), Any)


def _unknown(key: str, prefix: str, names: list[str]) -> str:
    known = [f"{prefix}.{name}" if prefix else name for name in names]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    where = f"under {prefix!r}" if prefix else "at the top level"
    return f"unknown option {key!r}.{hint} Choices {where}: {', '.join(known) or 'none'}."


@contextmanager
def new_names_in_errors() -> Iterator[None]:
    """Run `hydra.main`, and name what replaced an old key or preset in a YAML file.

    Hydra prints its own error and exits. The exit's context is that error.

    Raises:
        ConfigError: A YAML file has a key or preset of an earlier version.
    """
    try:
        yield
    except SystemExit as error:
        if message := renamed.explain(error.__context__):
            raise ConfigError(message) from error
        raise


def from_yaml(text: str) -> Config:
    """Return the typed configuration of an earlier run from its artifact `config.yaml`.

    Keys and values of earlier versions get their present names.

    Raises:
        ConfigError: It has keys or values that this version does not know.
    """
    try:
        stored: Any = OmegaConf.to_container(OmegaConf.create(text))
        renamed.migrate(stored)
        merged: Any = OmegaConf.merge(OmegaConf.structured(Config), stored)
        return from_hydra(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"config.yaml of the run: {' '.join(str(error).split())}. "
            "Use the version of this package that wrote it."
        ) from error


def from_hydra(cfg: DictConfig) -> Config:
    """Return the typed configuration of one job, after all checks.

    Raises:
        ConfigError: A value outside its choices or range, or an impossible combination of
            values. The key is named.
    """
    missing = sorted(k for k in OmegaConf.missing_keys(cfg) if not k.startswith("hydra"))
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: no value. Choose a preset (data=demo, model=tiny) or set it."
        )
    config = OmegaConf.to_object(cfg)
    if not isinstance(config, Config):
        raise ConfigError(
            "the config was composed without `base_schema`; "
            "keep it first in the defaults of conf/config.yaml."
        )
    return finish(config)


def finish(config: Config) -> Config:
    """Return a configuration that was changed or built in Python, after all checks.

    Raises:
        ConfigError: As `from_hydra`.
    """
    config = dataclasses.replace(config, stages=_stages(config.stages))
    if config.model.path is not None:
        config = dataclasses.replace(config, model=_from_path(config.model))
    validate(config)
    return config


def _stages(value: object) -> list[str]:
    """Return the stages of a run in their order.

    `all` is everything except refine, which changes pairs that are given as files.
    """
    names = value if isinstance(value, list) else [value]
    for name in names:
        if name not in ("all", *STAGES):
            raise ConfigError(
                f"stages: {name!r} is unknown; choose all, or some of {', '.join(STAGES)}: "
                "stages=[tables,pairs]."
            )
    if not names:
        raise ConfigError(f"stages=[] does nothing; choose all, or some of {', '.join(STAGES)}.")
    chosen = {*names, *STAGES} - {"refine"} | {*names} if "all" in names else set(names)
    return [name for name in STAGES if name in chosen]


def _from_path(m: ModelConfig) -> ModelConfig:
    """Return the model with `path` as its source, without the name and pin of the former source.

    The settings for its use (max_length, dropout, activation) are kept; model=path sets none of
    them. A model URI or the folder of a bundle is a registered model.
    """
    plain = dataclasses.replace(m, hub_id=None, revision=None, package=None)
    if MODEL_URI.match(str(m.path)) or (Path(str(m.path)) / "bundle.json").is_file():
        return dataclasses.replace(
            plain, name="registered", source="registered", uri=m.path, path=None, sha256=None
        )
    own = m.sha256 if m.source == "path" else None
    return dataclasses.replace(plain, name="path", source="path", sha256=own)
