"""Tests of packed and padded forward passes against transformers' own module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from reranker.config import ModelConfig
from reranker.errors import ModelError
from reranker.model import Encoder, load
from reranker.model.tokens import Batch
from tests.helpers import hub

if TYPE_CHECKING:
    import torch

pytestmark = pytest.mark.slow

MAX_LENGTH = 48
LETTERS = "abcdefghij"
QUERIES = ["", "a", "liked dune", "x" * 20, "a b c d " * 9]
CANDIDATES = ["", "b", "emma, a story", "y" * 30, LETTERS * 8]
QUERY, CANDIDATE = (g.ravel() for g in np.meshgrid(range(len(QUERIES)), range(len(CANDIDATES))))
NAMES = ["minilm", "bge"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: hub.write_both(tmp_path_factory.mktemp(name))[hub.pinned(name)] for name in NAMES}


def encoder_of(folder: Path, **changes: Any) -> Encoder:
    return load(
        ModelConfig(name="local", source="path", path=str(folder), max_length=MAX_LENGTH, **changes)
    )


def packed(encoder: Encoder) -> Batch:
    sides = encoder.tokenise(QUERIES), encoder.tokenise(CANDIDATES)
    return encoder.assemble(*sides, QUERY, CANDIDATE)


def padded_logits(encoder: Encoder) -> torch.Tensor:
    """Reference: transformers' module with pairs that its tokenizer pads."""
    pairs = [QUERIES[i] for i in QUERY], [CANDIDATES[i] for i in CANDIDATE]
    features = encoder.model.tokenizer(
        *pairs, truncation="longest_first", padding=True, return_tensors="pt"
    )
    assert int(features["attention_mask"].sum(1).max()) == MAX_LENGTH
    return encoder.model[0].model(**features).logits[:, 0]


def masked_logits(encoder: Encoder) -> torch.Tensor:
    """Reference: transformers' module, pair by pair, with the attention mask of shared contexts."""
    import torch

    form, batch = encoder._template, packed(encoder)
    first, logits = len(form.before), []
    for segment in batch.pair:
        context, own = (
            np.arange(*batch.start[s : s + 2]) for s in (batch.context[segment], segment)
        )
        rows = np.concatenate([own[:first], context, own[first:]])
        is_context = np.isin(rows, context)
        is_masked = torch.from_numpy(is_context[:, None] & ~is_context)
        mask = torch.zeros(is_masked.shape).masked_fill(is_masked, torch.finfo(torch.float32).min)
        ids, types = (torch.from_numpy(x[rows])[None] for x in (batch.ids, batch.types))
        module = encoder.model[0].model
        out = module(input_ids=ids, token_type_ids=types, attention_mask=mask[None, None])
        logits.append(out.logits[0, 0])
    return torch.stack(logits)


def gradients(encoder: Encoder, logits: torch.Tensor) -> dict[str, np.ndarray]:
    import torch

    encoder.model.zero_grad()
    torch.nn.functional.softplus(logits * torch.linspace(-1, 1, len(logits))).mean().backward()
    parameters = encoder.model.named_parameters()
    return {name: p.grad.numpy().copy() for name, p in parameters if p.grad is not None}


def assert_same_gradients(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray], **tolerance: float
) -> None:
    assert first.keys() == second.keys()
    largest = max(np.abs(g).max() for g in second.values())
    assert largest > 0.01  # so that the tolerance is small
    for name, gradient in second.items():
        np.testing.assert_allclose(first[name], gradient, err_msg=name, **tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_packed_logits_and_gradients_equal_the_padded_modules_for_all_lengths(
    name, folders
) -> None:
    encoder = encoder_of(folders[name])
    assert encoder.packed
    ours, stock = encoder.logits(packed(encoder)), padded_logits(encoder)
    np.testing.assert_allclose(ours.detach(), stock.detach(), atol=1e-5)
    assert stock.detach().std() > 0.1
    assert_same_gradients(gradients(encoder, ours), gradients(encoder, stock), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_shared_context_equals_the_module_with_a_mask(name, folders) -> None:
    encoder = encoder_of(folders[name], attention="shared_context")
    ours, masked = encoder.logits(packed(encoder)), masked_logits(encoder)
    np.testing.assert_allclose(ours.detach(), masked.detach(), atol=1e-5)
    full = encoder_of(folders[name])
    assert (ours - full.logits(packed(full))).abs().max() > 0.01
    assert_same_gradients(gradients(encoder, ours), gradients(encoder, masked), atol=1e-6)


@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_padded_attention_equals_attention_span_by_span(attention, folders, monkeypatch) -> None:
    """Other devices use `attend_padded`, which also runs on a CPU."""
    encoder = encoder_of(folders["minilm"], attention=attention)
    expected = encoder.logits(packed(encoder))
    expected_gradients = gradients(encoder, expected)

    def attend(states, query, plan, *, dropout, training):
        from reranker.model.attention import attend_padded

        return attend_padded(states, query, plan, dropout=dropout if training else 0.0)

    monkeypatch.setattr("reranker.model.packed.attend", attend)
    logits = encoder.logits(packed(encoder))
    np.testing.assert_allclose(logits.detach(), expected.detach(), atol=1e-5)
    assert_same_gradients(gradients(encoder, logits), expected_gradients, atol=1e-6)


@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_bf16_gradients_equal_those_of_fp32_up_to_rounding(attention, folders) -> None:
    import torch

    encoder = encoder_of(folders["minilm"], attention=attention)
    logits = encoder.logits(packed(encoder))
    rounded = encoder.logits(packed(encoder), bf16=True)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - logits).abs().max() < 0.05 * logits.std()
    both = gradients(encoder, logits), gradients(encoder, rounded)
    assert both[0].keys() == both[1].keys()
    flat = [np.concatenate([g.ravel() for g in grads.values()]) for grads in both]
    assert np.corrcoef(*flat)[0, 1] > 0.999


@pytest.mark.parametrize("change", ["fused_adamw", "load_state_dict"])
def test_working_copies_are_renewed_when_weights_change(change: str, folders) -> None:
    """Reference: an encoder that has no working copies yet."""
    import torch

    encoder = encoder_of(folders["minilm"])
    before = encoder.logits(packed(encoder), bf16=True)
    if change == "fused_adamw":
        gradients(encoder, before)
        torch.optim.AdamW(encoder.model.parameters(), lr=0.01, fused=True).step()
    else:
        encoder.model.load_state_dict({k: v * 1.1 for k, v in encoder.model.state_dict().items()})
    fresh = encoder_of(folders["minilm"])
    fresh.model.load_state_dict(encoder.model.state_dict())
    after = encoder.logits(packed(encoder), bf16=True)
    assert (after - before).abs().max() > 0.01
    assert torch.equal(after, fresh.logits(packed(fresh), bf16=True))


def test_working_copies_made_while_scoring_can_be_trained(folders) -> None:
    encoder = encoder_of(folders["minilm"], scoring="bf16")
    scores = encoder.score([QUERIES[i] for i in QUERY], [CANDIDATES[i] for i in CANDIDATE])
    logits = encoder.logits(packed(encoder), bf16=True)
    np.testing.assert_allclose(scores, logits.detach(), atol=0.02)
    fp32 = encoder_of(folders["minilm"]).logits(packed(encoder)).detach().numpy()
    assert np.abs(scores - fp32).max() > 1e-5
    assert len(gradients(encoder, logits)) == len(list(encoder.model.parameters()))


def set_dropout_rates(encoder: Encoder, *, hidden: float, probabilities: float) -> None:
    from torch.nn import Dropout

    for name, module in encoder.model.named_modules():
        if isinstance(module, Dropout):
            module.p = probabilities if name.endswith("attention.self.dropout") else hidden
    encoder.model.train()


@pytest.mark.parametrize(("hidden", "probabilities"), [(0.3, 0.0), (0.0, 0.3)])
def test_dropout_uses_the_modules_rates_and_its_gradient_fits_its_random_mask(
    hidden: float, probabilities: float, folders
) -> None:
    """Reference: a finite difference along the gradient, with the same random numbers."""
    import torch

    encoder = encoder_of(folders["minilm"])
    without_dropout = encoder.logits(packed(encoder)).detach()
    set_dropout_rates(encoder, hidden=hidden, probabilities=probabilities)
    weight = encoder.model[0].model.bert.encoder.layer[0].attention.self.value.weight

    def drawn() -> torch.Tensor:
        torch.manual_seed(0)
        return encoder.logits(packed(encoder))

    total = drawn().sum()
    (gradient,) = torch.autograd.grad(total, weight)
    with torch.no_grad():
        step = 1e-3 * gradient / gradient.norm()
        weight += step
        up = drawn().sum().item()
        weight -= 2 * step
        down = drawn().sum().item()
    assert (up - down) / 2e-3 == pytest.approx(gradient.norm().item(), rel=0.02)
    assert (drawn() - without_dropout).abs().max() > 0.01
    encoder.model.eval()
    assert torch.allclose(encoder.logits(packed(encoder)), without_dropout, atol=0.01)


def drawn_gradients(encoder: Encoder, **ways: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return logits and gradients with dropout, always with the same random numbers."""
    import torch

    set_dropout_rates(encoder, hidden=0.2, probabilities=0.2)
    torch.manual_seed(0)
    logits = encoder.logits(packed(encoder), **ways)
    return logits.detach().numpy(), gradients(encoder, logits)


@pytest.mark.parametrize(
    ("attention", "bf16"), [("full", False), ("shared_context", False), ("full", True)]
)
def test_recomputed_layers_give_the_same_gradients_with_dropout(attention, bf16, folders) -> None:
    encoder = encoder_of(folders["minilm"], attention=attention)
    layers, calls = encoder._forward._base.encoder.layer, []
    layers[0].intermediate.intermediate_act_fn.register_forward_hook(lambda *args: calls.append(1))
    logits, expected = drawn_gradients(encoder, bf16=bf16)
    assert len(calls) == 1
    again, recomputed = drawn_gradients(encoder, bf16=bf16, recompute=True)
    assert len(calls) == 1 + 2  # forward and backward
    np.testing.assert_allclose(again, logits, atol=1e-6)
    assert_same_gradients(recomputed, expected, atol=1e-6)


# PyTorch's tracer reads .grad of a non-leaf tensor.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("frozen", [False, True])
def test_a_compiled_forward_gives_the_same_logits_and_gradients(
    frozen: bool, folders, monkeypatch
) -> None:
    """It is traced as one graph and run by PyTorch, because a C++ compiler takes half a minute."""
    import torch

    from reranker.model import packed as module

    compiled: list[Any] = []

    def trace(function: Any, *, dynamic: bool) -> Any:
        compiled.append(function)
        return torch_compile(function, dynamic=dynamic, fullgraph=True, backend="aot_eager")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", trace)
    module._compiled_add_norm.cache_clear()
    encoder = encoder_of(folders["minilm"])
    for parameter in encoder._forward._base.parameters() if frozen else ():
        parameter.requires_grad_(False)
    for bf16 in (False, True):
        batch = packed(encoder)
        ours, plain = (encoder.logits(batch, compiled=c, bf16=bf16) for c in (True, False))
        np.testing.assert_allclose(ours.detach(), plain.detach(), atol=1e-5)
        assert_same_gradients(gradients(encoder, ours), gradients(encoder, plain), atol=1e-5)
    assert compiled == [module._add_norm]
    module._compiled_add_norm.cache_clear()


@pytest.fixture
def distilbert(tmp_path: Path) -> Path:
    """Write a cross-encoder of an architecture without a packed forward pass."""
    import torch
    from transformers import BertTokenizer, DistilBertConfig, DistilBertForSequenceClassification

    from reranker.model.weights import quiet

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]
    config = DistilBertConfig(
        vocab_size=len(tokens), dim=32, n_heads=2, n_layers=1, hidden_dim=64, num_labels=1
    )
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = BertTokenizer(
        vocab=vocabulary, model_max_length=512, model_input_names=["input_ids", "attention_mask"]
    )
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_another_architecture_is_padded_and_a_message_reports_it(
    distilbert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = encoder_of(distilbert)
    assert not encoder.packed
    assert capsys.readouterr().err == (
        "DistilBertForSequenceClassification has no packed forward pass; its batches are padded.\n"
    )
    ours, stock = encoder.logits(packed(encoder)), padded_logits(encoder)
    np.testing.assert_allclose(ours.detach(), stock.detach(), atol=1e-6)
    rounded = encoder.logits(packed(encoder), bf16=True)
    assert 0 < (rounded - ours).abs().max() < 0.05
    n_tokens, _ = encoder.cost(packed(encoder))
    assert n_tokens == len(QUERY) * MAX_LENGTH  # including padding


def test_a_padded_encoder_truncates_the_pairs_whose_module_inputs_lose_tokens(
    distilbert: Path,
) -> None:
    encoder, masks = encoder_of(distilbert), []
    encoder.model[0].model.register_forward_pre_hook(
        lambda module, args, inputs: masks.append(inputs["attention_mask"]), with_kwargs=True
    )
    encoder.logits(packed(encoder))
    query = encoder.count_tokens(QUERIES)[QUERY]
    candidate = encoder.count_tokens(CANDIDATES)[CANDIDATE]
    loses_tokens = masks[0].sum(1).numpy() < query + candidate + 3
    np.testing.assert_array_equal(encoder.truncates(query, candidate), loses_tokens)
    assert 0 < loses_tokens.sum() < len(loses_tokens)


def test_another_architecture_uses_its_own_gradient_checkpointing(distilbert: Path) -> None:
    encoder, calls = encoder_of(distilbert), []
    encoder.model[0].model.distilbert.transformer.layer[0].ffn.register_forward_hook(
        lambda *args: calls.append(1)
    )
    results = [drawn_gradients(encoder, recompute=recompute) for recompute in (False, True, False)]
    assert len(calls) == 1 + 2 + 1
    for logits, grads in results[1:]:
        np.testing.assert_allclose(logits, results[0][0], atol=1e-6)
        assert_same_gradients(grads, results[0][1], atol=1e-6)


def test_an_architecture_without_gradient_checkpointing_raises(
    distilbert: Path, monkeypatch
) -> None:
    encoder = encoder_of(distilbert)
    monkeypatch.setattr(type(encoder.model[0].model), "supports_gradient_checkpointing", False)
    message = "does not support gradient checkpointing. Set trainer.gradient_checkpointing=false"
    with pytest.raises(ModelError, match=message):
        encoder.logits(packed(encoder), recompute=True)


def test_another_architecture_is_compiled_as_one_module(distilbert: Path, monkeypatch) -> None:
    import torch

    compiled: list[Any] = []

    def trace(module: Any, *, dynamic: bool) -> Any:
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", trace)
    encoder = encoder_of(distilbert)
    expected = encoder.logits(packed(encoder)).detach()
    for _ in range(2):
        logits = encoder.logits(packed(encoder), compiled=True)
        np.testing.assert_allclose(logits.detach(), expected, atol=1e-6)
    assert compiled == [encoder.model[0].model]


def test_a_shared_context_with_another_architecture_raises(distilbert: Path) -> None:
    with pytest.raises(
        ModelError, match=r"needs a BERT.*is a DistilBertForSeq.*Set model.attention=full"
    ):
        encoder_of(distilbert, attention="shared_context")


def test_fewer_layers_of_another_architecture_raise(distilbert: Path) -> None:
    message = r"model.layers=1 needs a BERT, .* is a DistilBertForSequenceClassification"
    with pytest.raises(ModelError, match=message):
        encoder_of(distilbert, layers=1)


@pytest.mark.parametrize(
    ("trained", "run"), [("full", "shared_context"), ("shared_context", "full")]
)
def test_weights_trained_with_another_attention_raise(
    trained: str, run: str, folders, tmp_path: Path
) -> None:
    encoder_of(folders["minilm"], attention=trained).save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["reranker_attention"] == trained
    assert encoder_of(tmp_path, attention=trained).attention == trained
    with pytest.raises(
        ModelError,
        match=f"was trained with model.attention={trained}.*Set model.attention={trained}",
    ):
        encoder_of(tmp_path, attention=run)


@pytest.mark.parametrize("name", NAMES)
def test_sentence_transformers_loads_a_saved_full_encoder_with_equal_scores(
    name, folders, tmp_path
) -> None:
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder

    encoder = encoder_of(folders[name])
    encoder.save(tmp_path)
    stock = CrossEncoder(str(tmp_path), local_files_only=True, device="cpu")
    pairs = [(QUERIES[q], CANDIDATES[c]) for q, c in zip(QUERY, CANDIDATE, strict=True)]
    logits = stock.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    np.testing.assert_allclose(encoder.score(*zip(*pairs, strict=True)), logits, atol=1e-5)


@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_scores_are_independent_of_order_and_batch(
    attention, folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(folders["minilm"], attention=attention)
    logits = encoder.logits(packed(encoder)).detach().numpy()
    order = np.random.default_rng(0).permutation(len(QUERY))
    queries = [QUERIES[i] for i in QUERY[order]]
    candidates = [CANDIDATES[i] for i in CANDIDATE[order]]
    for budget in (1, 200, 10**6):
        monkeypatch.setattr("reranker.model.encoder.TOKENS_AT_ONCE", budget)
        np.testing.assert_allclose(encoder.score(queries, candidates), logits[order], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_logits_without_gradients_equal_those_of_training(name, attention, folders) -> None:
    """In the last layer, scoring computes no keys and values, so it sums in another order."""
    import torch

    encoder = encoder_of(folders[name], attention=attention)
    batch = packed(encoder)
    expected = encoder.logits(batch).detach()
    with torch.inference_mode():
        np.testing.assert_allclose(encoder.logits(batch), expected, atol=1e-5)
    assert expected.std() > 0.1


def test_lengths_equal_those_of_the_tokenizers_pairs(folders) -> None:
    encoder = encoder_of(folders["bge"])
    pairs = [QUERIES[i] for i in QUERY], [CANDIDATES[i] for i in CANDIDATE]
    ids = encoder.model.tokenizer(*pairs, truncation="longest_first")["input_ids"]
    sides = encoder.tokenise(QUERIES), encoder.tokenise(CANDIDATES)
    lengths = encoder.lengths(*sides, QUERY, CANDIDATE)
    assert lengths.tolist() == [len(x) for x in ids]
    assert packed(encoder).n_tokens == sum(lengths)


def test_a_shared_context_occurs_once_in_a_batch(folders) -> None:
    full, shared = (encoder_of(folders["minilm"], attention=a) for a in ("full", "shared_context"))
    sides = full.tokenise(["a b c"]), full.tokenise(["d e", "f", "g h i"])
    rows = np.zeros(3, dtype=np.int64), np.arange(3)
    context, candidates = 3 + 1, (2 + 1) + (1 + 1) + (3 + 1)
    assert full.assemble(*sides, *rows).n_tokens == 3 * (1 + context) + candidates
    assert shared.assemble(*sides, *rows).n_tokens == context + 3 * 1 + candidates
