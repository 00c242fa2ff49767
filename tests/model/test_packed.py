"""Forwards without padding give the padded module's logits and gradients; a shared context, a masked twin's."""

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
    return encoder.assemble(
        encoder.tokenise(QUERIES), encoder.tokenise(CANDIDATES), QUERY, CANDIDATE
    )


def padded_logits(encoder: Encoder) -> torch.Tensor:
    """Oracle: transformers' own module over pairs that its tokenizer pads."""
    pairs = [QUERIES[i] for i in QUERY], [CANDIDATES[i] for i in CANDIDATE]
    features = encoder.model.tokenizer(
        *pairs, truncation="longest_first", padding=True, return_tensors="pt"
    )
    assert int(features["attention_mask"].sum(1).max()) == MAX_LENGTH
    return encoder.model[0].model(**features).logits[:, 0]


def masked_logits(encoder: Encoder) -> torch.Tensor:
    """Oracle: transformers' own module, pair by pair, with a mask of who attends to whom."""
    import torch

    form, batch = encoder._template, packed(encoder)
    first, logits = len(form.before), []
    for segment in batch.pair:
        context, own = (
            np.arange(*batch.start[s : s + 2]) for s in (batch.context[segment], segment)
        )
        rows = np.concatenate([own[:first], context, own[first:]])
        sees = np.ones((len(rows), len(rows)), dtype=bool)
        is_context = np.isin(rows, context)
        sees[np.ix_(is_context, ~is_context)] = False
        mask = torch.zeros(sees.shape).masked_fill(
            torch.from_numpy(~sees), torch.finfo(torch.float32).min
        )
        ids, types = (torch.from_numpy(x[rows])[None] for x in (batch.ids, batch.types))
        out = encoder.model[0].model(
            input_ids=ids, token_type_ids=types, attention_mask=mask[None, None]
        )
        logits.append(out.logits[0, 0])
    return torch.stack(logits)


def gradients(encoder: Encoder, logits: torch.Tensor) -> dict[str, np.ndarray]:
    import torch

    encoder.model.zero_grad()
    torch.nn.functional.softplus(logits * torch.linspace(-1, 1, len(logits))).mean().backward()
    return {
        name: p.grad.numpy().copy()
        for name, p in encoder.model.named_parameters()
        if p.grad is not None
    }


def assert_same_gradients(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray], **tolerance: float
) -> None:
    assert first.keys() == second.keys()
    assert (
        max(np.abs(g).max() for g in second.values()) > 0.01
    )  # so that the tolerance says something
    for name, gradient in second.items():
        np.testing.assert_allclose(first[name], gradient, err_msg=name, **tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_packed_logits_and_gradients_are_the_padded_modules_for_lengths_from_none_to_the_longest(
    name, folders
) -> None:
    encoder = encoder_of(folders[name])
    assert encoder.packed
    ours, stock = encoder.logits(packed(encoder)), padded_logits(encoder)
    np.testing.assert_allclose(ours.detach(), stock.detach(), atol=1e-5)
    assert stock.detach().std() > 0.1
    assert_same_gradients(gradients(encoder, ours), gradients(encoder, stock), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_shared_context_is_the_module_under_a_mask_that_keeps_contexts_to_themselves(
    name, folders
) -> None:
    encoder = encoder_of(folders[name], attention="shared_context")
    ours, twin = encoder.logits(packed(encoder)), masked_logits(encoder)
    np.testing.assert_allclose(ours.detach(), twin.detach(), atol=1e-5)
    assert (
        ours - encoder_of(folders[name]).logits(packed(encoder_of(folders[name])))
    ).abs().max() > 0.01
    assert_same_gradients(gradients(encoder, ours), gradients(encoder, twin), atol=1e-6)


@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_attention_in_one_padded_call_is_attention_span_by_span(
    attention, folders, monkeypatch
) -> None:
    """What other devices run; a CPU can run both."""
    encoder = encoder_of(folders["minilm"], attention=attention)
    expected = encoder.logits(packed(encoder))
    wanted = gradients(encoder, expected)

    def one_call(states, query, plan, *, dropout, training):
        from reranker.model.attention import attend_padded

        return attend_padded(states, query, plan, dropout=dropout if training else 0.0)

    monkeypatch.setattr("reranker.model.packed.attend", one_call)
    other = encoder.logits(packed(encoder))
    np.testing.assert_allclose(other.detach(), expected.detach(), atol=1e-5)
    assert_same_gradients(gradients(encoder, other), wanted, atol=1e-6)


@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_bf16_gradients_arrive_in_the_fp32_weights_and_are_those_of_fp32_but_for_rounding(
    attention, folders
) -> None:
    import torch

    encoder = encoder_of(folders["minilm"], attention=attention)
    logits = encoder.logits(packed(encoder))
    rounded = encoder.logits(packed(encoder), bf16=True)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - logits).abs().max() < 0.05 * logits.std()
    exact = gradients(encoder, logits)
    rough = gradients(encoder, rounded)
    assert exact.keys() == rough.keys()
    sides = (np.concatenate([g.ravel() for g in grads.values()]) for grads in (exact, rough))
    assert np.corrcoef(*sides)[0, 1] > 0.999


@pytest.mark.parametrize("change", ["fused_adamw", "load_state_dict"])
def test_working_copies_follow_the_weights(change: str, folders) -> None:
    """Oracle: an encoder that has never made a copy."""
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


def test_copies_made_while_scoring_can_train_afterwards(folders) -> None:
    encoder = encoder_of(folders["minilm"], scoring="bf16")
    scores = encoder.score([QUERIES[i] for i in QUERY], [CANDIDATES[i] for i in CANDIDATE])
    logits = encoder.logits(packed(encoder), bf16=True)
    np.testing.assert_allclose(scores, logits.detach(), atol=0.02)
    assert (
        np.abs(
            scores - encoder_of(folders["minilm"]).logits(packed(encoder)).detach().numpy()
        ).max()
        > 1e-5
    )
    assert len(gradients(encoder, logits)) == len(list(encoder.model.parameters()))


def frozen_rates(encoder: Encoder, *, hidden: float, probabilities: float) -> None:
    from torch.nn import Dropout

    for name, module in encoder.model.named_modules():
        if isinstance(module, Dropout):
            module.p = probabilities if name.endswith("attention.self.dropout") else hidden
    encoder.model.train()


@pytest.mark.parametrize(("hidden", "probabilities"), [(0.3, 0.0), (0.0, 0.3)])
def test_dropout_is_unbiased_at_the_modules_rates_and_its_gradient_is_that_of_its_draw(
    hidden: float, probabilities: float, folders
) -> None:
    """The gradient is checked by a finite difference along itself, with the same random numbers."""
    import torch

    encoder = encoder_of(folders["minilm"])
    still = encoder.logits(packed(encoder)).detach()
    frozen_rates(encoder, hidden=hidden, probabilities=probabilities)
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
    assert (drawn() - still).abs().max() > 0.01
    encoder.model.eval()
    assert torch.allclose(encoder.logits(packed(encoder)), still, atol=0.01)


def drawn_gradients(encoder: Encoder, **ways: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits and gradients with dropout, always from the same random numbers."""
    import torch

    frozen_rates(encoder, hidden=0.2, probabilities=0.2)
    torch.manual_seed(0)
    logits = encoder.logits(packed(encoder), **ways)
    return logits.detach().numpy(), gradients(encoder, logits)


@pytest.mark.parametrize(
    ("attention", "bf16"), [("full", False), ("shared_context", False), ("full", True)]
)
def test_layers_computed_again_give_the_same_loss_and_gradients_dropout_included(
    attention, bf16, folders
) -> None:
    encoder = encoder_of(folders["minilm"], attention=attention)
    layers, calls = encoder._forward._base.encoder.layer, []
    layers[0].intermediate.intermediate_act_fn.register_forward_hook(lambda *args: calls.append(1))
    kept = drawn_gradients(encoder, bf16=bf16)
    n_kept = len(calls)
    again = drawn_gradients(encoder, bf16=bf16, recompute=True)
    assert (n_kept, len(calls)) == (1, 3)  # once; once forward and once backward
    np.testing.assert_allclose(again[0], kept[0], atol=1e-6)
    assert_same_gradients(again[1], kept[1], atol=1e-6)


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning"
)  # PyTorch's own look, hidden otherwise
@pytest.mark.parametrize("frozen", [False, True])
def test_a_compiled_forward_gives_the_plain_ones_logits_and_gradients(
    frozen: bool, folders, monkeypatch
) -> None:
    """Traced whole, for any number of tokens; run by PyTorch, for a C++ compiler would take half a minute."""
    import torch

    from reranker.model import packed as module

    compiled: list[Any] = []

    def traced(function: Any, *, dynamic: bool) -> Any:
        compiled.append(function)
        return real(function, dynamic=dynamic, fullgraph=True, backend="aot_eager")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", traced)
    module._compiled_add_norm.cache_clear()
    encoder = encoder_of(folders["minilm"])
    for parameter in encoder._forward._base.parameters() if frozen else ():
        parameter.requires_grad_(False)
    for bf16 in (False, True):
        ours, plain = (
            encoder.logits(packed(encoder), compiled=c, bf16=bf16) for c in (True, False)
        )
        np.testing.assert_allclose(ours.detach(), plain.detach(), atol=1e-5)
        assert_same_gradients(gradients(encoder, ours), gradients(encoder, plain), atol=1e-5)
    assert compiled == [module._add_norm]
    module._compiled_add_norm.cache_clear()


@pytest.fixture
def distilbert(tmp_path: Path) -> Path:
    """A family that has no packed forward."""
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


def test_another_architecture_is_padded_which_one_message_says(
    distilbert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = encoder_of(distilbert)
    assert not encoder.packed
    assert capsys.readouterr().err == (
        "DistilBertForSequenceClassification has no packed forward here; its batches are padded.\n"
    )
    ours, stock = encoder.logits(packed(encoder)), padded_logits(encoder)
    np.testing.assert_allclose(ours.detach(), stock.detach(), atol=1e-6)
    rounded = encoder.logits(packed(encoder), bf16=True)
    assert 0 < (rounded - ours).abs().max() < 0.05
    assert encoder.cost(packed(encoder))[0] == len(QUERY) * MAX_LENGTH  # tokens, padding among them


def test_a_padded_encoder_truncates_the_pairs_that_its_module_sees_truncated(
    distilbert: Path,
) -> None:
    encoder, masks = encoder_of(distilbert), []
    encoder.model[0].model.register_forward_pre_hook(
        lambda module, args, inputs: masks.append(inputs["attention_mask"]), with_kwargs=True
    )
    encoder.logits(packed(encoder))
    query, candidate = (
        encoder.count_tokens(QUERIES)[QUERY],
        encoder.count_tokens(CANDIDATES)[CANDIDATE],
    )
    loses_tokens = masks[0].sum(1).numpy() < query + candidate + 3
    np.testing.assert_array_equal(encoder.truncates(query, candidate), loses_tokens)
    assert 0 < loses_tokens.sum() < len(loses_tokens)


def test_another_architecture_computes_its_own_layers_again(distilbert: Path) -> None:
    encoder, calls = encoder_of(distilbert), []
    encoder.model[0].model.distilbert.transformer.layer[0].ffn.register_forward_hook(
        lambda *args: calls.append(1)
    )
    kept, again, after = (
        drawn_gradients(encoder, recompute=recompute) for recompute in (False, True, False)
    )
    assert len(calls) == 1 + 2 + 1
    for other in (again, after):
        np.testing.assert_allclose(other[0], kept[0], atol=1e-6)
        assert_same_gradients(other[1], kept[1], atol=1e-6)


def test_an_architecture_that_cannot_compute_its_layers_again_says_so(
    distilbert: Path, monkeypatch
) -> None:
    encoder = encoder_of(distilbert)
    monkeypatch.setattr(type(encoder.model[0].model), "supports_gradient_checkpointing", False)
    with pytest.raises(
        ModelError,
        match=r"cannot compute its layers again. Set trainer.gradient_checkpointing=false",
    ):
        encoder.logits(packed(encoder), recompute=True)


def test_another_architecture_is_compiled_whole(distilbert: Path, monkeypatch) -> None:
    import torch

    compiled: list[Any] = []
    monkeypatch.setattr(
        torch, "compile", lambda module, *, dynamic: compiled.append(module) or module
    )
    encoder = encoder_of(distilbert)
    wanted = encoder.logits(packed(encoder)).detach()
    for _ in range(2):
        np.testing.assert_allclose(
            encoder.logits(packed(encoder), compiled=True).detach(), wanted, atol=1e-6
        )
    assert compiled == [encoder.model[0].model]


def test_another_architecture_shares_no_contexts(distilbert: Path) -> None:
    with pytest.raises(
        ModelError, match=r"needs a BERT.*is a DistilBertForSeq.*Set model.attention=full"
    ):
        encoder_of(distilbert, attention="shared_context")


def test_another_architecture_is_not_cut(distilbert: Path) -> None:
    with pytest.raises(
        ModelError, match=r"model.layers=1 cuts a BERT, .* is a DistilBertForSequenceClassification"
    ):
        encoder_of(distilbert, layers=1)


@pytest.mark.parametrize(
    ("trained", "run"), [("full", "shared_context"), ("shared_context", "full")]
)
def test_weights_are_not_run_with_another_attention_than_they_were_trained_with(
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
def test_a_full_encoder_saves_a_folder_that_plain_sentence_transformers_scores_alike(
    name, folders, tmp_path
) -> None:
    from sentence_transformers.cross_encoder import CrossEncoder

    encoder = encoder_of(folders[name])
    encoder.save(tmp_path)
    stock = CrossEncoder(str(tmp_path), local_files_only=True, device="cpu")
    pairs = [(QUERIES[q], CANDIDATES[c]) for q, c in zip(QUERY, CANDIDATE, strict=True)]
    logits = stock.predict(
        pairs, activation_fn=__import__("torch").nn.Identity(), show_progress_bar=False
    )
    np.testing.assert_allclose(encoder.score(*zip(*pairs, strict=True)), logits, atol=1e-5)


@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_scores_depend_on_neither_order_nor_neighbours(
    attention, folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(folders["minilm"], attention=attention)
    logits = encoder.logits(packed(encoder)).detach().numpy()
    order = np.random.default_rng(0).permutation(len(QUERY))
    queries, candidates = (
        [QUERIES[i] for i in QUERY[order]],
        [CANDIDATES[i] for i in CANDIDATE[order]],
    )
    for budget in (1, 200, 10**6):
        monkeypatch.setattr("reranker.model.encoder.TOKENS_AT_ONCE", budget)
        np.testing.assert_allclose(encoder.score(queries, candidates), logits[order], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_scores_are_the_logits_that_training_sees(name, attention, folders) -> None:
    """Scoring sums in another order in the last layer, where it has neither keys nor values."""
    import torch

    encoder = encoder_of(folders[name], attention=attention)
    batch = packed(encoder)
    expected = encoder.logits(batch).detach()
    with torch.inference_mode():
        np.testing.assert_allclose(encoder.logits(batch), expected, atol=1e-5)
    assert expected.std() > 0.1


def test_lengths_are_the_tokens_of_the_pairs_that_the_tokenizer_makes(folders) -> None:
    encoder = encoder_of(folders["bge"])
    pairs = [QUERIES[i] for i in QUERY], [CANDIDATES[i] for i in CANDIDATE]
    ids = encoder.model.tokenizer(*pairs, truncation="longest_first")["input_ids"]
    lengths = encoder.lengths(
        encoder.tokenise(QUERIES), encoder.tokenise(CANDIDATES), QUERY, CANDIDATE
    )
    assert lengths.tolist() == [len(x) for x in ids]
    assert packed(encoder).n_tokens == sum(lengths)


def test_a_shared_context_stands_once_in_a_batch(folders) -> None:
    full, shared = (encoder_of(folders["minilm"], attention=a) for a in ("full", "shared_context"))
    sides = full.tokenise(["a b c"]), full.tokenise(["d e", "f", "g h i"])
    rows = np.zeros(3, dtype=np.int64), np.arange(3)
    assert full.assemble(*sides, *rows).n_tokens == 3 * (1 + 3 + 1) + (2 + 1) + (1 + 1) + (3 + 1)
    assert shared.assemble(*sides, *rows).n_tokens == (3 + 1) + (1 + 2 + 1) + (1 + 1 + 1) + (
        1 + 3 + 1
    )
