"""The typed configuration: one dataclass for each group of `conf/`, checked as a whole before any work."""

from reranker.config.checks import check_storage, validate
from reranker.config.composing import check_overrides, compose, from_hydra, from_yaml, register
from reranker.config.schema import (
    BASELINES,
    CHOICES,
    LIST_KINDS,
    ROOT,
    VARIANTS,
    Config,
    DataConfig,
    EngineConfig,
    EvalConfig,
    MixConfig,
    ModelConfig,
    SamplingConfig,
    StorageConfig,
    TrackingConfig,
    TrainerConfig,
    WorldConfig,
)

__all__ = [
    "BASELINES",
    "CHOICES",
    "LIST_KINDS",
    "ROOT",
    "VARIANTS",
    "Config",
    "DataConfig",
    "EngineConfig",
    "EvalConfig",
    "MixConfig",
    "ModelConfig",
    "SamplingConfig",
    "StorageConfig",
    "TrackingConfig",
    "TrainerConfig",
    "WorldConfig",
    "check_overrides",
    "check_storage",
    "compose",
    "from_hydra",
    "from_yaml",
    "register",
    "validate",
]
