"""Training objectives as (sum, count), which add up over micro-batches and processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# The term of a pair does not depend on its group, so a step may contain a part of a group.
POINTWISE = ("bce", "mse")
# Weight of NDCG-Loss2 in NDCG-Loss2++ (Wang et al. 2018; also sentence-transformers' default).
LAMBDA_MU = 10.0

Loss = Callable[["Tensor", "Tensor", "Tensor"], tuple["Tensor", "Tensor"]]


def choose(name: str, *, pos_weight: float = 1.0) -> Loss:
    """Return an objective: a function of (scores, labels, group), each (n,), rows in any order.

    The function returns the sum of its terms, differentiable in the scores, and the number of
    terms, which depends only on labels and groups. The loss of a step is the total of the sums
    divided by the total of the numbers. It is therefore the same for any assignment of groups to
    micro-batches and processes. A group without a term (no positive, or equal labels in an
    objective that compares labels) contributes nothing to either. The values equal those of
    sentence-transformers' losses with default arguments; margin_mse compares all pairs of a group.

    Args:
        name: One of config.CHOICES["trainer.loss"].
        pos_weight: Weight of positives in bce.

    Example:
        >>> total, n = choose("softmax")(scores, labels, group)
        >>> (total / n).backward()
    """
    if name == "bce":
        return lambda scores, labels, group: _bce(scores, labels, pos_weight)
    return {
        "mse": _mse,
        "margin_mse": _margin_mse,
        "softmax": _softmax,
        "listnet": _listnet,
        "plistmle": _plistmle,
        "ranknet": _ranknet,
        "lambdaloss": _lambdaloss,
    }[name]


def _bce(scores: Tensor, labels: Tensor, pos_weight: float) -> tuple[Tensor, Tensor]:
    from torch.nn.functional import binary_cross_entropy_with_logits

    weight = scores.new_tensor(pos_weight)
    total = binary_cross_entropy_with_logits(scores, labels, pos_weight=weight, reduction="sum")
    return total, scores.new_tensor(len(scores))


def _mse(scores: Tensor, labels: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    return (scores - labels).square().sum(), scores.new_tensor(len(scores))


def _margin_mse(scores: Tensor, labels: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Squared difference between the model's and the teacher's margin of every two pairs.

    Source: Hofstätter et al. 2020.
    """
    error, _, mask = _padded(scores - labels, labels, group)
    both = (mask[:, :, None] & mask[:, None, :]).triu(diagonal=1)
    return (error[:, :, None] - error[:, None, :])[both].square().sum(), both.sum()


def _softmax(scores: Tensor, labels: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a group's softmax with its labels, which are scaled to sum to 1.

    There is one term per group with a positive.
    """
    score, label, mask = _padded(scores, labels, group)
    total = label.sum(dim=1)
    target = label / total.clamp(min=1e-12)[:, None]
    return -(target * _log_softmax(score, mask)).sum(), (total > 0).sum()


def _listnet(scores: Tensor, labels: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a group's softmax with the softmax of its labels; one term per group.

    Source: Cao et al. 2007.
    """
    score, label, mask = _padded(scores, labels, group)
    target = label.masked_fill(~mask, -math.inf).softmax(dim=1)
    return -(target * _log_softmax(score, mask)).sum(), scores.new_tensor(len(score))


def _plistmle(scores: Tensor, labels: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Position-aware Plackett-Luce likelihood of the order by label; one term per group.

    Rank r of n has the weight 2^(n-r) - 1; the weights are scaled to sum to 1. Rows with equal
    labels keep their input order.

    Source: Lan et al. 2014.
    """
    import torch

    score, label, mask = _padded(scores, labels, group)
    order = label.masked_fill(~mask, -math.inf).argsort(dim=1, descending=True, stable=True)
    score, mask = score.gather(1, order), mask.gather(1, order)
    low = score.masked_fill(~mask, torch.finfo(score.dtype).min)
    log_likelihood = score - low.flip(1).logcumsumexp(dim=1).flip(1)
    n = mask.sum(dim=1, keepdim=True)
    rank = torch.arange(1, score.shape[1] + 1, device=score.device)
    scale = (n - 127).clamp(min=0)  # weights of long groups would overflow float32
    weight = (torch.exp2((n - rank - scale).float()) - torch.exp2(-scale.float())) * mask
    weight = weight / (weight.sum(dim=1, keepdim=True) + 1e-10)
    return -(log_likelihood.masked_fill(~mask, 0.0) * weight).sum(), scores.new_tensor(len(score))


def _ranknet(scores: Tensor, labels: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic loss in bits of every two pairs of a group with different labels.

    Source: Burges et al. 2005.
    """
    score, label, mask = _padded(scores, labels, group)
    prefers = _prefers(label, mask)
    return _logistic(score)[prefers].sum(), prefers.sum()


def _lambdaloss(scores: Tensor, labels: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """RankNet's terms weighted by the effect of each pair on NDCG: NDCG-Loss2++.

    Source: Wang et al. 2018, eq. 12 and 15.
    """
    score, label, mask = _padded(scores, labels, group)
    prefers = _prefers(label, mask)
    terms = _ndcg_weight(score.detach(), label, mask) * _logistic(score)
    return terms[prefers].sum(), prefers.sum()


def _ndcg_weight(score: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    """Return (n_groups, n, n) differences of gains, weighted by differences of discounts."""
    import torch

    order = score.masked_fill(~mask, -math.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1) + 1.0
    gain = torch.exp2(label) - 1
    discount = torch.log2(torch.arange(gain.shape[1], device=gain.device) + 2.0)
    ideal = gain.sort(dim=1, descending=True).values / discount
    gain = gain / ideal.sum(dim=1, keepdim=True).clamp(min=1e-10)
    value = 1 / torch.log2(1 + rank)
    swap = (value[:, :, None] - value[:, None, :]).abs()
    distance = (rank[:, :, None] - rank[:, None, :]).abs().clamp(min=1)
    step = 1 / torch.log2(1 + distance) - 1 / torch.log2(2 + distance)
    return (LAMBDA_MU * step + swap) * (gain[:, :, None] - gain[:, None, :]).abs()


def _logistic(score: Tensor) -> Tensor:
    """Return (n_groups, n, n) logistic losses in bits of ranking row i above row j."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(score[:, :, None] - score[:, None, :]) / math.log(2)


def _prefers(label: Tensor, mask: Tensor) -> Tensor:
    """Return (n_groups, n, n) whether row i has a higher label than row j."""
    return (label[:, :, None] > label[:, None, :]) & mask[:, :, None] & mask[:, None, :]


def _log_softmax(score: Tensor, mask: Tensor) -> Tensor:
    """Log-softmax over the pairs of each group; 0 in the padding."""
    return score.masked_fill(~mask, -math.inf).log_softmax(dim=1).masked_fill(~mask, 0.0)


def _padded(scores: Tensor, labels: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, labels and mask, each (n_groups, largest group); 0 in the padding."""
    import torch

    _, row, n = group.unique(return_inverse=True, return_counts=True)
    order = row.argsort(stable=True)
    start = n.cumsum(0) - n
    column = torch.empty_like(row)
    column[order] = torch.arange(len(row), device=row.device) - start[row[order]]
    shape = (len(n), int(n.max()))
    mask = torch.zeros(shape, dtype=torch.bool, device=scores.device)
    mask[row, column] = True
    score, label = (
        values.new_zeros(shape).index_put((row, column), values) for values in (scores, labels)
    )
    return score, label, mask
