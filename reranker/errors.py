"""Errors that a user can fix; each message has what was expected and found, where, and a remedy."""


class RerankerError(Exception):
    """Base class. Commands print the message without a traceback and exit with an error code."""


class ConfigError(RerankerError):
    """A key, value or combination of values in the configuration is impossible."""


class DataError(RerankerError):
    """An input table is missing, unreadable or too small, or has the wrong schema."""


class StorageError(RerankerError):
    """Object storage refused a request, broke off, sent wrong bytes, or has an unsafe file name."""


class LeakError(RerankerError):
    """The audit found held-out data in the inputs; the run stops."""


class ModelError(RerankerError):
    """Weights are missing, differ from the pinned ones, or do not fit the task."""


class TrainingError(RerankerError):
    """Training diverged, collapsed or got worse, or it cannot resume from a checkpoint."""


class RequestError(RerankerError):
    """A request to rerank is invalid; the message has the field's name."""


class EngineError(RerankerError):
    """The Dask cluster for the generation of pairs is unreachable or failed."""


class ComparisonError(RerankerError):
    """Runs cannot be compared: they ranked different lists or users, or lack data."""
