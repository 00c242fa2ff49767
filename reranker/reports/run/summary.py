"""What a run says at its end: the table of scorers, the lift with its interval, and what to type next."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from reranker.redaction import redact
from reranker.tracking.store import default_uri

if TYPE_CHECKING:  # served models and the command line import this package, and need no baselines
    import pandas as pd

    from reranker.config import Config
    from reranker.eval import Evaluation
    from reranker.serving.registry import Registered

NAMES = {
    "random": "random",
    "popularity": "popularity",
    "item_knn": "item-kNN",
    "ease": "EASE",
    "bm25": "BM25",
    "genres": "genre overlap",
    "authors": "author overlap",
    "features_lr": "numeric features alone",
    "bi_encoder": "bi-encoder cosine",
    "bi_encoder_top3": "bi-encoder top 3",
    "untrained": "before fine-tuning",
    "fine_tuned": "fine-tuned",
    "fused": "fused",
}
MODELS = {"fine_tuned": "The fine-tuned model", "fused": "The fused model"}


def report(
    evaluation: Evaluation, registered: Registered, cfg: Config, console: Console | None = None
) -> None:
    """Print a table for each list kind, the verdicts against the best of the baselines, and two commands."""
    out = console or Console(highlight=False)
    for kind in cfg.eval.list_kinds:
        out.print(_table(evaluation.summary[evaluation.summary["kind"] == kind], kind, cfg))
        out.print(verdict(evaluation.lift[evaluation.lift["kind"] == kind]), soft_wrap=True)
    out.print(f"\nmodel {registered.uri}: {_alias(registered, cfg)}", soft_wrap=True)
    out.print("next:", style="bold")
    for line in next_commands(registered, cfg):
        out.print(f"  {line}", soft_wrap=True, markup=False)


def _table(rows: pd.DataFrame, kind: str, cfg: Config) -> Table:
    n_users = int(rows["n_users"].iloc[0])
    title = f"{kind} lists of {cfg.eval.n_candidates}, {n_users} test users: means with 95 % intervals over users"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)  # 80 columns hold it
    table.add_column("scorer", no_wrap=True)
    for name in ("NDCG@10", "MAP", "NDCG@3", "MRR@10", "AUC"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows.sort_values("ndcg_10").to_dict("records"):
        ends = f"[{row['ndcg_10_low']:.3f}, {row['ndcg_10_high']:.3f}]"
        cells = [
            f"{row['ndcg_10']:.3f} {'(no interval)' if math.isnan(row['ndcg_10_low']) else ends}",
            *(
                f"{row[key]:.3f}" if key in row else ""
                for key in ("map", "ndcg_3", "mrr_10", "auc")
            ),
        ]
        cells = [cell.replace("[", r"\[") for cell in cells]  # rich reads a bare bracket as markup
        table.add_row(
            NAMES[row["scorer"]], *cells, style="bold" if row["scorer"] == "fine_tuned" else ""
        )
    return table


def verdict(lift: pd.DataFrame) -> str:
    """A sentence for each model: whether it beats, ties with or loses to the best of the baselines."""
    return "\n".join(_verdict(best) for best in lift[lift["is_best"]].to_dict("records"))


def _verdict(best: dict[str, Any]) -> str:
    model, baseline = MODELS[best["model"]], NAMES[best["over"]]
    if math.isnan(best["low"]):
        return (
            f"{model} against the best baseline, {baseline}: NDCG@10 {best['lift']:+.3f}, "
            "without an interval, which needs two test users with a positive."
        )
    word = (
        "beats" if best["low"] > 0 else "loses to" if best["high"] < 0 else "is not told apart from"
    )
    interval = rf"\[{best['low']:+.3f}, {best['high']:+.3f}]"
    return (
        f"{model} {word} the best baseline, {baseline}: "
        f"NDCG@10 {best['lift']:+.3f} {interval} (95 %, paired over users)."
    )


def _alias(registered: Registered, cfg: Config) -> str:
    if registered.version is None:
        return registered.reason
    moved = (
        f"{cfg.tracking.alias} is this version now"
        if registered.alias_moved
        else f"not {cfg.tracking.alias}"
    )
    return f"{moved} ({registered.reason})"


def next_commands(registered: Registered, cfg: Config) -> list[str]:
    """The commands that open the UI and rerank with this run's model, as they can be typed from the checkout."""
    uri = (
        f"models:/{cfg.tracking.registered_model}@{cfg.tracking.alias}"
        if registered.alias_moved
        else registered.uri
    )
    store = (
        ""
        if cfg.tracking.uri == default_uri()
        else f" --tracking-uri {shlex.quote(redact(cfg.tracking.uri))}"
    )
    return [
        f".venv/bin/reranker ui{store}",
        f".venv/bin/reranker rerank{store} --model {uri} --user-ctx 'Likes: Dune by Frank Herbert. Genres: science "
        "fiction' --candidate 'Title: Hyperion | Genres: science fiction' --candidate 'Title: Emma | Genres: romance'",
    ]
