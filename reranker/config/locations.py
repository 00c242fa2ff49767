"""Where the configuration files are, and the folder of the outputs and the store."""

from __future__ import annotations

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent  # the checkout, if this is one
IS_CHECKOUT = not (PACKAGE / "conf").exists() and (ROOT / "conf" / "config.yaml").exists()
# The folder with conf/ and experiments/: a wheel has them as data of the package (see setup.py).
CONFIGS = ROOT if IS_CHECKOUT else PACKAGE
GROUP = "experiments"


def project_root() -> Path:
    """Return the folder that has `outputs/` and `mlruns/`.

    It is the checkout, or the working directory if the package is installed from a wheel.
    """
    return ROOT if IS_CHECKOUT else Path.cwd()


class Experiments(FileConfigSource):
    """The group `experiments`: the YAML files of this folder, without the folders next to it.

    Hydra would search a whole checkout, `.venv` included, for groups.
    """

    @staticmethod
    def scheme() -> str:
        """Return the scheme of this source in a search path."""
        return GROUP

    def is_group(self, config_path: str) -> bool:
        """Return whether this is the group, or the root that has it."""
        return config_path in ("", GROUP) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        """Return whether this is a file of the group."""
        return config_path.startswith(f"{GROUP}/") and super().is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the names of the group's files, or of the group."""
        if config_path == "":
            return [GROUP] if results_filter in (None, ObjectType.GROUP) else []
        return super().list(config_path, results_filter)


class SearchPath(SearchPathPlugin):
    """Add the experiments, and the own presets in `conf/` and `experiments/` of a project.

    Hydra accepts `hydra.searchpath` in the primary config only; this works with `--config-name`
    too. A file of an earlier folder has priority.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders that exist."""
        for folder in dict.fromkeys([CONFIGS, project_root()]):
            for scheme, path, part in (("file", folder / "conf", "conf"), (GROUP, folder, GROUP)):
                if (folder / part).is_dir():
                    search_path.append("reranker", f"{scheme}://{path}")


def register() -> None:
    """Register both plugins in Hydra; later calls change nothing."""
    for plugin in (Experiments, SearchPath):
        Plugins.instance().register(plugin)
