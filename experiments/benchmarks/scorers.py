"""Build the sides of inference.py: scorers that load the same folder of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reranker.model import Encoder

N_CORES = 2
MAX_LENGTH = 256
BATCH = 32  # the default of predict
N_CALIBRATION = 64
# Side -> packages that it needs in addition to those of the project.
SIDES = {
    "predict": (),
    "predict_bf16": (),
    "encoder": (),
    "encoder_bf16": (),
    "encoder_shared": (),
    "encoder_shared_bf16": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "onnx_int8": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino", "nncf"),
    "openvino_bf16": ("openvino", "nncf"),
    "openvino_int8": ("openvino", "nncf"),
}
Texts = tuple[list[str], list[str]]  # user contexts, book texts
Score = Callable[[Sequence[str], Sequence[str]], Any]


def stock_weights(folder: Path) -> Path:
    """Return a folder of MiniLM-L6 with a randomly initialised head, which every side loads."""
    return _saved(folder / "weights", "full")


def _saved(folder: Path, attention: str) -> Path:
    """Save the weights for one attention.

    The weights are the same for both. The folder records the attention, and loading checks it.
    """
    from reranker.config import compose
    from reranker.model import load

    if not folder.exists():
        keys = [
            "model=minilm_wheel",
            f"model.max_length={MAX_LENGTH}",
            f"model.attention={attention}",
        ]
        load(compose(keys).model).save(folder)
    return folder


@cache
def encoder_of(side: str, weights: Path) -> Encoder:
    """Return our encoder with the settings of a side."""
    from reranker.config import ModelConfig
    from reranker.model import load

    attention = "shared_context" if side.startswith("encoder_shared") else "full"
    folder = _saved(weights.with_name("shared"), attention) if attention != "full" else weights
    scoring = "bf16" if side.endswith("bf16") else "fp32"
    settings = {"attention": attention, "scoring": scoring, "max_length": MAX_LENGTH}
    return load(ModelConfig(name="bench", source="path", path=str(folder), **settings))


def build(side: str, weights: Path) -> Score:
    """Load a side from the folder of weights, and return its scorer of (queries, candidates)."""
    if side.startswith("predict"):
        return _predict(weights, bf16=side.endswith("bf16"))
    if side.startswith("encoder"):
        return encoder_of(side, weights).score
    if side.startswith("onnx"):
        return _onnx(weights.parent / f"{side}.onnx", weights)
    if side == "openvino":
        return _openvino_fp32(weights)
    from reranker.model import load_exported

    exported = load_exported(weights, side.removeprefix("openvino_"))
    return exported.score


def _predict(weights: Path, *, bf16: bool) -> Score:
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder

    torch.set_num_threads(N_CORES)
    model = CrossEncoder(
        str(weights),
        device="cpu",
        processor_kwargs={"model_max_length": MAX_LENGTH},
        activation_fn=torch.nn.Identity(),
        local_files_only=True,
    )

    def score(queries: Sequence[str], candidates: Sequence[str]) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            pairs = list(zip(queries, candidates, strict=True))
            return model.predict(pairs, batch_size=BATCH, show_progress_bar=False)

    return score


def _onnx(graph: Path, weights: Path) -> Score:
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = N_CORES
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=MAX_LENGTH, strategy="longest_first")
    tokenizer.enable_padding()

    def score(queries: Sequence[str], candidates: Sequence[str]) -> Any:
        pairs = list(zip(queries, candidates, strict=True))
        # By characters, as predict sorts.
        order = sorted(range(len(pairs)), key=lambda i: -len(candidates[i]))
        logits = np.empty(len(pairs), dtype=np.float32)
        for start in range(0, len(pairs), BATCH):
            rows = order[start : start + BATCH]
            tokens = tokenizer.encode_batch_fast([pairs[i] for i in rows])
            inputs = {
                "input_ids": np.array([t.ids for t in tokens], dtype=np.int64),
                "attention_mask": np.array([t.attention_mask for t in tokens], dtype=np.int64),
                "token_type_ids": np.array([t.type_ids for t in tokens], dtype=np.int64),
            }
            logits[rows] = session.run(None, inputs)[0][:, 0]
        return logits

    return score


def _openvino_fp32(weights: Path) -> Score:
    """Return the scorer of our bf16 variant's graph, computed in fp32."""
    from tokenizers import Tokenizer

    from reranker.model.openvino_scorer import ExportedModel, folder_name, read_manifest, runtime

    openvino = runtime()
    folder = weights / folder_name("bf16")
    model = openvino.Core().compile_model(
        str(folder / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return ExportedModel(model, tokenizer, read_manifest(folder)).score


def prepare(side: str, weights: Path, texts: Texts) -> None:
    """Export the model of a side if it loads other files than the weights."""
    if side.startswith("openvino"):
        _export("int8" if side.endswith("int8") else "bf16", weights, texts)
    elif side.startswith("onnx"):
        _export_onnx(weights)


def _export(variant: str, weights: Path, texts: Texts) -> None:
    from reranker.config import ModelConfig
    from reranker.model.openvino_export import Agreement, export

    if (weights / f"openvino_{variant}").exists():
        return
    contexts, books = texts
    pairs = list(zip(contexts[-N_CALIBRATION:], books[-N_CALIBRATION:], strict=True))
    cfg = ModelConfig(name="bench", source="path", path=str(weights), max_length=MAX_LENGTH)
    # A random head finds nothing, so the agreement is not checked here; inference.py measures it.
    unmeasured = Agreement(*[float("nan")] * 4, n_lists=0)
    export(cfg, variant, pairs, lambda exact, other: unmeasured, force=True)


def _export_onnx(weights: Path) -> None:
    import warnings

    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModelForSequenceClassification

    graph = weights.parent / "onnx.onnx"
    if graph.exists():
        return
    model = AutoModelForSequenceClassification.from_pretrained(
        weights, attn_implementation="eager"
    ).eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones((2, 16), dtype=torch.int64) for _ in names)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            example,
            graph,
            input_names=names,
            dynamo=True,
            dynamic_shapes=[axes] * 3,
            verbose=False,
        )
    quantize_dynamic(graph, weights.parent / "onnx_int8.onnx", weight_type=QuantType.QInt8)
