"""From Hydra's words and files to the typed configuration: Hydra's and OmegaConf's home."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any, get_origin, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reranker.config.checks import validate
from reranker.config.schema import GROUPS, ROOT, Config, ModelConfig
from reranker.errors import ConfigError


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
        raise ConfigError(
            f"{error.override}: not an override of the form key=value ({error})"
        ) from error
    for override in parsed:
        key = override.key_or_group
        if key.split(".")[0].split("/")[0] != "hydra" and not override.is_delete():
            secret = re.search("secret|password|token|key|credential", key.rsplit(".", 1)[-1])
            _check_key(key.replace("/", "."), f"{key}=***" if secret else str(override.input_line))
            if key in GROUPS and isinstance(
                override.value(), int | float | None
            ):  # Hydra answers with a traceback
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
        node = next(
            (t for t in getattr(fields[part], "__args__", [fields[part]]) if t is not type(None)),
            Any,
        )


def from_yaml(text: str) -> Config:
    """The typed configuration of an earlier run, from its artifact `config.yaml`.

    Raises:
        ConfigError: It has keys or values that this version does not know.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(text))
        return from_hydra(merged)  # type: ignore[arg-type]  # a mapping merged with a mapping is one
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
        raise ConfigError(
            f"{', '.join(missing)}: no value given. Choose a group (data=demo, model=tiny) or set it."
        )
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
    return dataclasses.replace(
        m, name="path", source="path", hub_id=None, revision=None, package=None, sha256=own
    )
