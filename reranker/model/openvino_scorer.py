"""Load an exported variant of a cross-encoder, and score with OpenVINO without torch."""

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
from reranker.model.activations import apply
from reranker.model.validation import check_finite, check_pairs
from reranker.model.weights import WEIGHTS
from reranker.terminal import with_progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# INFERENCE_PRECISION_HINT of each variant. In an int8 variant the layers that are not int8 stay
# fp32, so that scores are the same on every machine.
HINTS = {"int8": "f32", "bf16": "bf16"}
# Format of a variant's folder; increase it if older code would misread the folder.
# Format 1 has only the activations identity and sigmoid.
FORMAT = 2
MANIFEST = "manifest.json"
GRAPH, CONSTANTS, TOKENIZER = "model.xml", "model.bin", "tokenizer.json"
FILES = (GRAPH, CONSTANTS, TOKENIZER)
# Maximum tokens of a batch, including padding.
TOKENS_AT_ONCE = 2048
# Batches are padded to a multiple of this length, so that OpenVINO prepares kernels for few shapes.
STEP = 16
# Pairs that are tokenised and sorted together.
BLOCK = 4096


@dataclass(frozen=True)
class Manifest:
    """The `manifest.json` of a variant's folder, which is written last.

    Attributes:
        format: Format of the folder.
        variant: int8 or bf16.
        weights: SHA-256 of the model.safetensors from which the variant was exported.
        runtime: Version of OpenVINO that wrote it.
        calibration: Digest of the pairs on which the activation ranges were measured, or None.
        pad_id: Token id of the padding.
        activation: A value of `model.activation`.
        computed_in: Precision on the exporting machine when the agreement was measured: int8, bf16
            or f32.
        agreement: The figures of the comparison with fp32.
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
    """Return the name of a variant's folder, which is a subfolder of the weights' folder.

    Raises:
        ModelError: There is no such variant.
    """
    if variant not in VARIANTS:
        raise ModelError(f"variant={variant!r} is unknown; choose one of {', '.join(VARIANTS)}.")
    return f"openvino_{variant}"


def earlier_folder(target: Path) -> Path:
    """Return where an earlier variant is kept while a new one replaces it.

    It remains there if the export is killed at that moment.
    """
    return target.with_name(f".{target.name}.old")


def runtime(*packages: str) -> Any:
    """Import and return `openvino`, without the usage statistics that it and nncf send by default.

    Args:
        packages: Other packages of the extra that must be installed.

    Raises:
        ModelError: The extra is not installed.
    """
    for package in ("openvino", *packages):
        if importlib.util.find_spec(package) is None:
            raise ModelError(
                f"{package} is not installed, and exported variants need it: "
                "pip install 'reranker[export]'."
            )
    # With None in sys.modules, `import openvino_telemetry` fails.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class ExportedModel:
    """A variant of a cross-encoder on the CPU; `load_exported` creates it.

    Attributes:
        manifest: The manifest of its folder.
        computes_in: The precision in which this machine computes: int8, bf16 or f32.

    Example:
        >>> exported = load_exported(Path("weights"), "int8")
        >>> exported.score(["Liked: Dune."], ["Solaris: a planet that thinks."])
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
        """Return one score per pair: that of `Encoder.score`, up to the variant's rounding.

        Pairs are batched by token length and padded to multiples of 16. In int8, whose activation
        scales are constants, a pair's score changes by less than 1e-5 of the scores' spread with
        the other pairs of its batch.

        Args:
            queries: (n_pairs,) user contexts.
            candidates: (n_pairs,) book texts, aligned with the queries.
            progress: Label of a progress bar, which is shown only in a terminal; None shows none.

        Returns:
            (n_pairs,) float32, in the order of the arguments.

        Raises:
            ValueError: The two lengths differ.
            ModelError: A logit is NaN or infinite.
        """
        check_pairs(queries, candidates)
        logits = np.empty(len(queries), dtype=np.float32)
        # Calling the model itself would use one request for all threads, and fail.
        request = self._model.create_infer_request()
        for rows, batch in with_progress(self._batches(queries, candidates), progress):
            logits[rows] = request.infer(batch, share_inputs=True)[0][:, 0]
        name = f"scores of {folder_name(self.manifest.variant)}"
        check_finite(logits, name, "Export the variant again, or load the weights without one.")
        return apply(self.manifest.activation, logits)

    def _batches(
        self, queries: Sequence[str], candidates: Sequence[str]
    ) -> Iterator[tuple[npt.NDArray[np.intp], dict[str, npt.NDArray[np.int64]]]]:
        """Yield the rows and padded inputs of each batch, longest first within each block."""
        for start in range(0, len(queries), BLOCK):
            block = slice(start, start + BLOCK)
            pairs = list(zip(queries[block], candidates[block], strict=True))
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
    """Yield the rows of each batch, longest first.

    A batch has at most TOKENS_AT_ONCE tokens, including padding.
    """
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        width = -(-int(lengths[order[first]]) // STEP) * STEP
        rows = order[first : first + max(1, TOKENS_AT_ONCE // width)]
        yield rows
        first += len(rows)


def load_exported(weights: Path, variant: str) -> ExportedModel:
    """Return the exported variant from a folder of weights.

    Args:
        weights: The folder of the weights, which contains the folder of the variant.
        variant: int8 or bf16.

    Raises:
        ModelError: The variant is unknown or was not exported, a file is missing or was changed,
            the variant was exported from other weights, or the extra is not installed.

    Example:
        >>> exported = load_exported(Path("weights"), "int8")
    """
    target = weights / folder_name(variant)
    earlier = earlier_folder(target)
    folder = earlier if earlier.is_dir() and not target.exists() else target
    runtime()
    manifest = read_manifest(folder)
    if (found := digest_file(weights / WEIGHTS)) != manifest.weights:
        raise ModelError(
            f"{folder} was made from weights of SHA-256 {manifest.weights[:12]}…, but "
            f"{weights / WEIGHTS} is {found[:12]}…. Export the variant again."
        )
    exported = compile_folder(folder, manifest)
    if exported.computes_in != variant:
        print(
            f"{folder}: this CPU does not compute in {variant}; scores are {exported.computes_in}",
            file=sys.stderr,
        )
    return exported


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a variant's folder after checking the SHA-256 of every file.

    Raises:
        ModelError: There is no manifest, it has another format, or a file is missing or was
            changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{folder} is not there, or is incomplete. "
            "Export it: reranker export MODEL --variant int8|bf16"
        )
    try:
        manifest = Manifest(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: not the manifest of a variant ({error}). Export the variant again."
        ) from error
    if manifest.format not in range(1, FORMAT + 1):
        raise ModelError(
            f"{path}: format {manifest.format}, expected 1 to {FORMAT}. Export the variant again."
        )
    for name in FILES:
        file = folder / name
        if not file.is_file() or digest_file(file) != manifest.files.get(name):
            raise ModelError(
                f"{file}: missing, or its SHA-256 differs from that in {MANIFEST}. "
                "Export the variant again."
            )
    return manifest


def compile_folder(folder: Path, manifest: Manifest) -> ExportedModel:
    """Compile the variant in a folder whose files were checked or just written.

    Raises:
        ModelError: OpenVINO does not compile it.
    """
    openvino = runtime()
    from tokenizers import Tokenizer

    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": HINTS[manifest.variant], "PERFORMANCE_HINT": "LATENCY"}
    try:
        model = core.compile_model(core.read_model(folder / GRAPH), "CPU", hint)
    except RuntimeError as error:
        raise ModelError(
            f"{folder / GRAPH}: OpenVINO {openvino.__version__} does not compile this graph of "
            f"{manifest.runtime} ({str(error).strip().splitlines()[-1]}). Export the variant again."
        ) from error
    return ExportedModel(model, Tokenizer.from_file(str(folder / TOKENIZER)), manifest)


def _precision(model: Any) -> str:
    """Return the precision of a compiled model: bf16, or f32 if the CPU does not support bf16."""
    return str(model.get_property("INFERENCE_PRECISION_HINT").get_type_name())
