"""Scoring whose speed a run keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reranker.model.throughput import Work

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from reranker.model import Encoder
    from reranker.tracking.run_log import RunLog


class Metered:
    """Scores as an encoder does, with a bar, and logs what the scoring of each stage came to.

    The metrics are `score/<stage>/` pairs_per_s, tokens_per_s, padding_fraction and gemm_peak_fraction, of all calls
    in the stage so far.
    """

    def __init__(self, encoder: Encoder, log: RunLog) -> None:
        self._encoder, self._log = encoder, log
        self._work: dict[str, Work] = {}

    def __call__(
        self, queries: Sequence[str], candidates: Sequence[str]
    ) -> npt.NDArray[np.float32]:
        """(n_pairs,) scores; see `Encoder.score`."""
        encoder, stage = self._encoder, self._log.running
        scores = encoder.score(queries, candidates, progress="scoring")
        self._work[stage] = self._work.get(stage, Work()) + encoder.scored
        speeds = self._work[stage].speeds(encoder.gemm_flops_per_s(bf16=encoder.scores_in_bf16))
        self._log.metrics({f"score/{stage}/{name}": value for name, value in speeds.items()})
        return scores
