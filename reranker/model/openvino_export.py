"""Export a cross-encoder to OpenVINO as int8 or bf16, if it ranks as well as the original."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reranker.cache import digest, digest_file
from reranker.config import ModelConfig
from reranker.errors import ModelError
from reranker.model import Encoder, activations, load, trained_attention
from reranker.model.openvino_scorer import (
    FILES,
    FORMAT,
    GRAPH,
    MANIFEST,
    TOKENIZER,
    ExportedModel,
    Manifest,
    compile_folder,
    earlier_folder,
    folder_name,
    runtime,
)
from reranker.model.weights import quiet, resolve

if TYPE_CHECKING:
    import torch

# Maximum difference between the NDCG@10 of a variant and of fp32 on the dev lists.
TOLERANCE = 0.005
Pair = tuple[str, str]
Scorer = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Agreement:
    """Agreement of a variant's rankings with those of the fp32 weights.

    Attributes:
        ndcg_10_fp32: Mean NDCG@10 of the weights.
        ndcg_10: Mean NDCG@10 of the variant.
        kendall: Mean over the lists of Kendall's tau-b between the two rankings.
        kendall_low: The 5th percentile of tau-b over the lists.
        n_lists: Number of lists.
    """

    ndcg_10_fp32: float
    ndcg_10: float
    kendall: float
    kendall_low: float
    n_lists: int


def export(
    cfg: ModelConfig,
    variant: str,
    calibration: Sequence[Pair],
    compare: Callable[[Scorer, Scorer], Agreement],
    *,
    force: bool = False,
) -> Manifest:
    """Export the weights in `cfg.path` as a variant, and return its manifest.

    The variant is written to `openvino_int8/` or `openvino_bf16/` in the folder of the weights.
    int8 uses static activation ranges, measured once on the calibration pairs. The folder is
    written atomically and replaces an earlier one. A variant is not written if its NDCG@10 differs
    from that of fp32 by more than .005, or if it cannot be measured because this CPU does not
    compute in bf16.

    Args:
        cfg: A model with `source=path`; the variant gets its `max_length` and `activation`.
        variant: int8 or bf16.
        calibration: (query, candidate) pairs of train users; 64 to 256 are enough. bf16 needs none.
        compare: Ranks the dev lists with the first scorer (fp32) and the second (the variant).
        force: Write the variant even if it fails; its manifest contains the figures.

    Raises:
        ModelError: The variant is unknown, the extra is not installed, the weights do not load or
            were trained with another attention than `full`, int8 has no calibration pairs, or the
            variant fails the comparison.

    Example:
        >>> export(ModelConfig(source="path", path="weights"), "int8", pairs, compare)
    """
    target = Path(str(cfg.path)) / folder_name(variant)
    openvino = runtime("nncf")
    weights = resolve(cfg)
    _check_attention(weights.folder)
    if variant == "int8" and not calibration:
        raise ModelError(
            "int8 needs calibration pairs, got none; pass 64 to 256 pairs of train users."
        )
    encoder = load(cfg, weights)
    with _atomic_folder(target) as folder:
        model = _convert(encoder)
        if variant == "int8":
            model = _quantise(model, encoder, calibration)
        openvino.save_model(model, folder / GRAPH, compress_to_fp16=False)
        _save_tokenizer(encoder, folder / TOKENIZER)
        used = calibration if variant == "int8" else None
        manifest = _manifest(folder, encoder, variant, calibration=used)
        exported = compile_folder(folder, manifest)
        agreement = compare(encoder.score, exported.score)
        if not force:
            _check(exported, agreement)
        figures = {k: float(v) for k, v in dataclasses.asdict(agreement).items()}
        manifest = dataclasses.replace(
            manifest, computed_in=exported.computes_in, agreement=figures
        )
        (folder / MANIFEST).write_text(json.dumps(dataclasses.asdict(manifest), indent=1))
    return manifest


def _check_attention(folder: Path) -> None:
    attention = trained_attention(folder) or "full"
    if attention != "full":
        raise ModelError(
            f"{folder} was trained with model.attention={attention}; only stock attention (full) "
            "can be exported. Train with model.attention=full, or serve these weights unexported."
        )


def _check(exported: ExportedModel, agreement: Agreement) -> None:
    """Raise if a variant could not be measured, or if its NDCG@10 differs too much."""
    variant = exported.manifest.variant
    if exported.computes_in != variant:
        raise ModelError(
            f"this CPU does not compute in {variant}, so the variant's quality cannot be measured. "
            "Export on a CPU that does (AVX512_BF16 or AMX), choose int8, or write the variant "
            "unmeasured with --force."
        )
    if not abs(agreement.ndcg_10 - agreement.ndcg_10_fp32) <= TOLERANCE:
        raise ModelError(
            f"{variant}: NDCG@10 {agreement.ndcg_10:.4f} on {agreement.n_lists} dev lists, fp32 "
            f"has {agreement.ndcg_10_fp32:.4f} (Kendall {agreement.kendall:.3f}); they may differ "
            f"by {TOLERANCE}. Nothing was written. Use more calibration pairs, or write the "
            "variant anyway with --force."
        )


@contextmanager
def _atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `target` if the block ends without an error.

    After an error the new folder is deleted. If the process is killed between the two moves,
    `load_exported` still finds the earlier variant.
    """
    earlier = earlier_folder(target)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temp:
        new = Path(temp) / "new"
        new.mkdir()
        yield new
        if target.exists():
            _remove(earlier)
            os.replace(target, earlier)
        os.replace(new, target)
    _remove(earlier)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _convert(encoder: Encoder) -> Any:
    """Return OpenVINO's graph of the transformer, for any number and length of pairs."""
    openvino = runtime()
    module = _logits_only(encoder.model[0].model)
    # Two pairs, the second of which is padded.
    pairs = ["a b c", "a"], ["d", "e"]
    tokens = encoder.model.tokenizer(*pairs, padding=True, return_tensors="pt")
    with quiet(), _without_tracing_warnings():
        return openvino.convert_model(module, example_input=dict(tokens))


@contextmanager
def _without_tracing_warnings() -> Iterator[None]:
    """Suppress warnings about constant shapes in tracing; batch size and length stay dynamic."""
    import torch

    with warnings.catch_warnings():
        for category in (torch.jit.TracerWarning, FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        yield


def _logits_only(transformer: Any) -> torch.nn.Module:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            token_type_ids: torch.Tensor | None = None,
        ) -> torch.Tensor:
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
            if token_type_ids is not None:
                inputs["token_type_ids"] = token_type_ids
            return self.transformer(**inputs).logits

    return Logits().eval()


def _quantise(model: Any, encoder: Encoder, calibration: Sequence[Pair]) -> Any:
    """Return the graph with int8 linear layers.

    Weights are quantised per channel, activations by their ranges on the calibration pairs.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    tokenise = partial(encoder.model.tokenizer, truncation="longest_first", return_tensors="np")
    inputs = [dict(tokenise([query], [candidate])) for query, candidate in calibration]
    samples = nncf.Dataset(inputs)
    nncf.set_log_level(logging.ERROR)
    # nncf has no option that switches its progress bars off.
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model,
            samples,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )


def _save_tokenizer(encoder: Encoder, path: Path) -> None:
    """Save the fast tokenizer with the encoder's truncation, so that scoring needs no torch."""
    tokenizer: Any = encoder.model.tokenizer
    fast = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    fast.no_padding()
    side = tokenizer.truncation_side
    fast.enable_truncation(
        max_length=tokenizer.model_max_length, strategy="longest_first", direction=side
    )
    fast.save(str(path))


def _manifest(
    folder: Path, encoder: Encoder, variant: str, *, calibration: Sequence[Pair] | None
) -> Manifest:
    """Return the manifest of a folder that was just written; its agreement is added later."""
    return Manifest(
        format=FORMAT,
        variant=variant,
        weights=str(encoder.weights.sha256),
        runtime=f"openvino {runtime().__version__}",
        calibration=None if calibration is None else digest([list(pair) for pair in calibration]),
        pad_id=int(encoder.model.tokenizer.pad_token_id),
        activation=activations.name_of(encoder.activation),
        computed_in="",
        agreement={},
        files={name: digest_file(folder / name) for name in FILES},
    )
