"""Export a cross-encoder to OpenVINO as int8 or bf16, beside its weights, unless its ranking suffers."""

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
from reranker.model import Encoder, load, trained_attention
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

TOLERANCE = 0.005  # of NDCG@10 on the dev lists, the distance that a variant may have from fp32
Pair = tuple[str, str]
Scorer = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Agreement:
    """How a variant ranks lists beside the weights in fp32.

    Attributes:
        ndcg_10_fp32: Mean NDCG@10 of the weights.
        ndcg_10: Mean NDCG@10 of the variant.
        kendall: Mean over the lists of Kendall's tau-b between the two orders.
        kendall_low: The 5th percentile of those.
        n_lists: How many lists.
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
    """Write a variant of the weights in `cfg.path` into that folder, as `openvino_int8/` or `openvino_bf16/`.

    int8 has static activation ranges, measured once on the calibration pairs. The folder comes whole or not at all,
    and takes the place of an earlier one. A variant whose NDCG@10 is further than .005 from that of fp32, or that
    cannot be measured because this CPU has no bf16, is not written.

    Args:
        cfg: A model of `source=path`; its `max_length` and `activation` become the variant's.
        variant: int8 or bf16.
        calibration: (query, candidate) pairs of train users; 64 to 256 are enough. bf16 needs none.
        compare: Ranks the dev lists with the first scorer (fp32) and the second (the variant).
        force: Write the variant although it fails; its manifest holds the figures.

    Raises:
        ModelError: The variant is unknown, the extra is not installed, the weights do not load or have another
            attention than a stock cross-encoder, int8 has no calibration pairs, or the variant fails.
    """
    place = Path(str(cfg.path)) / folder_name(variant)
    openvino = runtime("nncf")
    weights = resolve(cfg)
    _check_attention(weights.folder)
    if variant == "int8" and not calibration:
        raise ModelError(
            "int8 measures its ranges on calibration pairs, got none; give 64 to 256 of train users."
        )
    encoder = load(cfg, weights)
    with _beside(place) as folder:
        model = _convert(encoder)
        if variant == "int8":
            model = _quantise(model, encoder, calibration)
        openvino.save_model(model, folder / GRAPH, compress_to_fp16=False)
        _save_tokenizer(encoder, folder / TOKENIZER)
        manifest = _describe(encoder, variant, calibration if variant == "int8" else None, folder)
        exported = compile_folder(folder, manifest)
        agreement = compare(encoder.score, exported.score)
        if not force:
            _check(exported, agreement)
        facts = {k: float(v) for k, v in dataclasses.asdict(agreement).items()}
        manifest = dataclasses.replace(manifest, computed_in=exported.computes_in, agreement=facts)
        (folder / MANIFEST).write_text(json.dumps(dataclasses.asdict(manifest), indent=1))
    return manifest


def _check_attention(folder: Path) -> None:
    attention = trained_attention(folder) or "full"
    if attention != "full":
        raise ModelError(
            f"{folder} was trained with model.attention={attention}; only stock attention, full, can be exported. "
            "Train with model.attention=full, or serve these weights as they are."
        )


def _check(exported: ExportedModel, agreement: Agreement) -> None:
    """Refuse a variant that was not measured, or not measured as good enough."""
    variant = exported.manifest.variant
    if exported.computes_in != variant:
        raise ModelError(
            f"this CPU does not compute in {variant}, so the variant's quality cannot be measured here. Export on one "
            "that does (AVX512_BF16 or AMX), choose int8, or write it unmeasured with --force."
        )
    if not abs(agreement.ndcg_10 - agreement.ndcg_10_fp32) <= TOLERANCE:
        raise ModelError(
            f"{variant}: NDCG@10 {agreement.ndcg_10:.4f} on {agreement.n_lists} dev lists, fp32 has "
            f"{agreement.ndcg_10_fp32:.4f} (Kendall {agreement.kendall:.3f}); they may differ by {TOLERANCE}. Nothing "
            "was written. Give more calibration pairs, or write it all the same with --force."
        )


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """An empty folder that takes `place` when the block ends without an error, and is gone when it does not.

    Killed between the two moves it leaves the earlier variant where `load_exported` finds it.
    """
    earlier = earlier_folder(place)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as temp:
        new = Path(temp) / "new"
        new.mkdir()
        yield new
        if place.exists():
            _remove(earlier)
            os.replace(place, earlier)
        os.replace(new, place)
    _remove(earlier)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _convert(encoder: Encoder) -> Any:
    """OpenVINO's graph of the transformer: logits of token ids, any number of pairs of any length."""
    openvino = runtime()
    tokens = encoder.model.tokenizer(
        ["a b c", "a"], ["d", "e"], padding=True, return_tensors="pt"
    )  # one is padded
    with quiet(), _without_tracing_warnings():
        return openvino.convert_model(
            _logits_only(encoder.model[0].model), example_input=dict(tokens)
        )


@contextmanager
def _without_tracing_warnings() -> Iterator[None]:
    """Without what tracing says of shapes that it takes as constants; the batch and the length are not among them."""
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
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            return self.transformer(
                input_ids=input_ids, attention_mask=attention_mask, **types
            ).logits

    return Logits().eval()


def _quantise(model: Any, encoder: Encoder, calibration: Sequence[Pair]) -> Any:
    """The graph with int8 linears: weights per channel, activations by ranges seen on the calibration pairs."""
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    cut = partial(encoder.model.tokenizer, truncation="longest_first", return_tensors="np")
    samples = nncf.Dataset([dict(cut([query], [candidate])) for query, candidate in calibration])
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its bars have no switch
        return nncf.quantize(
            model,
            samples,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )


def _save_tokenizer(encoder: Encoder, path: Path) -> None:
    """The fast tokenizer alone, set to truncate as the encoder does, so that scoring needs neither torch nor more."""
    tokenizer: Any = encoder.model.tokenizer
    own = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    own.no_padding()
    side = tokenizer.truncation_side
    own.enable_truncation(
        max_length=tokenizer.model_max_length, strategy="longest_first", direction=side
    )
    own.save(str(path))


def _describe(
    encoder: Encoder, variant: str, calibration: Sequence[Pair] | None, folder: Path
) -> Manifest:
    """The manifest of a folder that was just written, before its agreement is known."""
    return Manifest(
        format=FORMAT,
        variant=variant,
        weights=str(encoder.weights.sha256),
        runtime=f"openvino {runtime().__version__}",
        calibration=None if calibration is None else digest([list(pair) for pair in calibration]),
        pad_id=int(encoder.model.tokenizer.pad_token_id),
        activation=type(encoder.activation).__name__.lower(),
        computed_in="",
        agreement={},
        files={name: digest_file(folder / name) for name in FILES},
    )
