"""An exported variant of a cross-encoder: checked against its weights, it scores in OpenVINO without torch."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reranker.cache import digest_file
from reranker.config import VARIANTS
from reranker.errors import ModelError
from reranker.model.validation import check_finite, check_pairs
from reranker.model.weights import WEIGHTS
from reranker.terminal import with_progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HINTS = {
    "int8": "f32",
    "bf16": "bf16",
}  # what is not int8 stays fp32, so that a score is the same on every machine
FORMAT = 1  # of the folder of a variant; raise it when older readers would misread it
MANIFEST = "manifest.json"
GRAPH, CONSTANTS, TOKENIZER = "model.xml", "model.bin", "tokenizer.json"
FILES = (GRAPH, CONSTANTS, TOKENIZER)
TOKENS_AT_ONCE = 2048  # of a batch, padding included
STEP = 16  # batches are padded to a multiple of this: few shapes to prepare kernels for
BLOCK = 4096  # pairs that are tokenised and sorted together


@dataclass(frozen=True)
class Manifest:
    """What a variant was made from and how well it agrees with it: `manifest.json` of its folder, written last.

    Attributes:
        weights: SHA-256 of the model.safetensors that it computes.
        runtime: The version of OpenVINO that wrote it.
        calibration: Digest of the pairs that the activation ranges were measured on; None where there are none.
        computed_in: What the exporting machine computed in when the agreement was measured: int8, bf16 or f32.
        agreement: The figures of the quality gate.
        files: SHA-256 of every other file.
    """

    format: int
    variant: str
    weights: str
    runtime: str
    calibration: str | None
    pad_id: int
    activation: str
    computed_in: str
    agreement: dict[str, float]
    files: dict[str, str]


def folder_name(variant: str) -> str:
    """The folder of a variant, beside the weights.

    Raises:
        ModelError: There is no such variant.
    """
    if variant not in VARIANTS:
        raise ModelError(f"variant={variant!r} is unknown; choose one of {', '.join(VARIANTS)}.")
    return f"openvino_{variant}"


def earlier_folder(place: Path) -> Path:
    """Where the variant of a folder waits while another takes its place, and stays if the export is killed there."""
    return place.with_name(f".{place.name}.old")


def runtime(*packages: str) -> Any:
    """The module `openvino`, imported without the usage statistics that it and nncf would send unasked.

    Args:
        packages: What else of the extra must be installed.

    Raises:
        ModelError: The extra is not installed.
    """
    for package in ("openvino", *packages):
        if importlib.util.find_spec(package) is None:
            raise ModelError(
                f"{package} is not installed, and exported variants need it: pip install 'reranker[export]'."
            )
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # how an import is refused
    import openvino

    return openvino


class ExportedModel:
    """A variant of a cross-encoder on the CPU. `load_exported` makes one.

    Attributes:
        manifest: What it was made from.
        computes_in: What this machine computes in: int8, bf16 or f32.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, manifest: Manifest) -> None:
        self.manifest = manifest
        self.computes_in = "int8" if manifest.variant == "int8" else _precision(model)
        self._model = model
        self._tokenizer = tokenizer
        self._inputs = {port.get_any_name() for port in model.inputs}

    def score(
        self, queries: Sequence[str], candidates: Sequence[str], *, progress: str | None = None
    ) -> npt.NDArray[np.float32]:
        """One score per pair, as `Encoder.score` gives it but for the variant's rounding.

        Pairs are batched by token length and padded to multiples of 16. A pair's score moves by less than 1e-5 of the
        scores' spread with what stands beside it under int8, whose activation scales are constants.

        Args:
            queries: (n_pairs,) user contexts.
            candidates: (n_pairs,) book texts, aligned with the queries.
            progress: The label of a progress bar, which a terminal shows and nothing else; None shows none.

        Returns:
            (n_pairs,) float32, in the order given.

        Raises:
            ValueError: The two lengths differ.
            ModelError: A logit is NaN or infinite.
        """
        from scipy.special import expit

        check_pairs(queries, candidates)
        logits = np.empty(len(queries), dtype=np.float32)
        request = (
            self._model.create_infer_request()
        )  # calling the model would share one between threads, and fail
        for rows, batch in with_progress(self._batches(queries, candidates), progress):
            logits[rows] = request.infer(batch, share_inputs=True)[0][:, 0]
        name = f"scores of {folder_name(self.manifest.variant)}"
        check_finite(logits, name, "Export the variant again, or load the weights without one.")
        return expit(logits) if self.manifest.activation == "sigmoid" else logits

    def _batches(
        self, queries: Sequence[str], candidates: Sequence[str]
    ) -> Iterator[tuple[npt.NDArray[np.intp], dict[str, npt.NDArray[np.int64]]]]:
        """Rows and padded inputs of one batch after another, longest first within each block."""
        for start in range(0, len(queries), BLOCK):
            pairs = list(
                zip(queries[start : start + BLOCK], candidates[start : start + BLOCK], strict=True)
            )
            tokens = self._tokenizer.encode_batch_fast(pairs)
            for rows in batches(np.array([len(t.ids) for t in tokens])):
                yield start + rows, self._padded([tokens[row] for row in rows])

    def _padded(self, tokens: Sequence[Any]) -> dict[str, npt.NDArray[np.int64]]:
        width = -(-max(len(t.ids) for t in tokens) // STEP) * STEP
        ids = np.full((len(tokens), width), self.manifest.pad_id, dtype=np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, t in enumerate(tokens):
            n = len(t.ids)
            ids[row, :n], types[row, :n], mask[row, :n] = t.ids, t.type_ids, 1
        inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        return {name: inputs[name] for name in self._inputs}


def batches(lengths: npt.NDArray[Any]) -> Iterator[npt.NDArray[np.intp]]:
    """Rows of one batch after another, longest first, each of at most TOKENS_AT_ONCE tokens with its padding."""
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        width = -(-int(lengths[order[first]]) // STEP) * STEP
        rows = order[first : first + max(1, TOKENS_AT_ONCE // width)]
        yield rows
        first += len(rows)


def load_exported(weights: Path, variant: str) -> ExportedModel:
    """The variant that lies beside the weights in their folder.

    Raises:
        ModelError: No such variant, not exported, a file is missing or was changed, the weights are others than it was
            made from, or the extra is not installed.
    """
    place = weights / folder_name(variant)
    earlier = earlier_folder(place)
    folder = earlier if earlier.is_dir() and not place.exists() else place
    runtime()
    manifest = read_manifest(folder)
    if (found := digest_file(weights / WEIGHTS)) != manifest.weights:
        raise ModelError(
            f"{folder} was made from weights of SHA-256 {manifest.weights[:12]}…, but {weights / WEIGHTS} is "
            f"{found[:12]}…. Export the variant again."
        )
    exported = compile_folder(folder, manifest)
    if exported.computes_in != variant:
        print(
            f"{folder}: this CPU does not compute in {variant}; scores are {exported.computes_in}",
            file=sys.stderr,
        )
    return exported


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a variant's folder, once every file has the bytes that it names.

    Raises:
        ModelError: There is none, it is of another format, or a file is missing or was changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{folder} is not there, or not whole. Make it: reranker export MODEL --variant int8|bf16"
        )
    try:
        facts = json.loads(path.read_text())
        manifest = Manifest(**facts)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: not the manifest of a variant ({error}). Export the variant again."
        ) from error
    if manifest.format != FORMAT:
        raise ModelError(
            f"{path}: format {manifest.format}, expected {FORMAT}. Export the variant again."
        )
    for name in FILES:
        file = folder / name
        if not file.is_file() or digest_file(file) != manifest.files.get(name):
            raise ModelError(
                f"{file}: missing, or not the bytes that {MANIFEST} pins. Export the variant again."
            )
    return manifest


def compile_folder(folder: Path, manifest: Manifest) -> ExportedModel:
    """The variant in a folder whose files are known to be whole.

    Raises:
        ModelError: OpenVINO does not read it.
    """
    openvino = runtime()
    from tokenizers import Tokenizer

    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": HINTS[manifest.variant], "PERFORMANCE_HINT": "LATENCY"}
    try:
        model = core.compile_model(core.read_model(folder / GRAPH), "CPU", hint)
    except RuntimeError as error:
        raise ModelError(
            f"{folder / GRAPH}: OpenVINO {openvino.__version__} does not compile what {manifest.runtime} wrote "
            f"({str(error).strip().splitlines()[-1]}). Export the variant again."
        ) from error
    return ExportedModel(model, Tokenizer.from_file(str(folder / TOKENIZER)), manifest)


def _precision(model: Any) -> str:
    """What a compiled model computes in: bf16 where the hint was taken, f32 where the CPU has none."""
    return str(model.get_property("INFERENCE_PRECISION_HINT").get_type_name())
