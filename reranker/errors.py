"""The errors that a user can mend. Each message says what was expected, what came, where, and what to do."""


class RerankerError(Exception):
    """Any failure that this package explains; it is printed without a traceback, and the exit code is not 0."""


class ConfigError(RerankerError):
    """A key, value or combination in the configuration is impossible."""


class DataError(RerankerError):
    """An input table is missing, unreadable, of the wrong schema, or too small for what is asked of it."""


class StorageError(RerankerError):
    """Object storage refused, broke off, gave other bytes than it should, or holds a name that is not safe to write."""


class LeakError(RerankerError):
    """The audit found an answer inside a question; the run stops."""


class ModelError(RerankerError):
    """Weights are missing, not the pinned ones, or do not fit the task."""


class TrainingError(RerankerError):
    """Training diverged, collapsed or went the wrong way, or a checkpoint cannot be gone on from; it stops there."""


class RequestError(RerankerError):
    """A request to rerank cannot be answered as it stands; the field is named."""


class EngineError(RerankerError):
    """The Dask cluster that should build pairs cannot be reached, or gave up."""
