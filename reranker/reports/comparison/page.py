"""A comparison as one HTML page that needs no other file, no script and no network."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.errors import ComparisonError
from reranker.reports.comparison.plots import COSTS, figures
from reranker.reports.comparison.runs import Comparison
from reranker.reports.comparison.summary import chosen, numbered, sentences
from reranker.reports.page import render
from reranker.tracking.metric_names import MAX_PARAM

if TYPE_CHECKING:
    from mlflow import MlflowClient

KINDS = {
    "uniform": "lists of books drawn uniformly",
    "popularity": "lists of books about as popular as the user's own",
    "retriever": "lists that a first stage retrieved: the real job",
    "bookdb": "lists of three positives and nine negatives, as the original evaluated",
}


def log(client: MlflowClient, run_id: str, comparison: Comparison) -> None:
    """Log the page as `compare.html` and the table as `comparison.parquet` on a run, with tags that say what was done.

    `comparison` names metric, scorer, list kinds and the configuration that dev chooses; `comparison.<kind>` says why
    a kind was left out.
    """
    kinds = ", ".join(comparison.table["kind"].unique())
    made = f"{comparison.metric} of {comparison.scorer} on {kinds} lists; best on dev: {comparison.best}"
    client.set_tag(run_id, "comparison", made[:MAX_PARAM])
    for kind, reason in comparison.refused.items():
        client.set_tag(run_id, f"comparison.{kind}", f"none: {reason}"[:MAX_PARAM])
    client.log_text(run_id, page(comparison), "compare.html")
    with tempfile.TemporaryDirectory(prefix="reranker-compare-") as folder:
        path = Path(folder) / "comparison.parquet"
        facts = {"metric": comparison.metric, "scorer": comparison.scorer}
        comparison.table.assign(**facts).to_parquet(path, index=False)
        client.log_artifact(run_id, str(path))


def write(comparison: Comparison, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        ComparisonError: The place cannot be written to.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temp.write_text(page(comparison), encoding="utf-8")
        os.replace(temp, path)
    except OSError as error:
        temp.unlink(missing_ok=True)
        raise ComparisonError(
            f"{path}: the page cannot be written ({error.strerror}); choose another place."
        ) from error


def page(comparison: Comparison) -> str:
    """The comparison as HTML; every name and value of a run is escaped."""
    kinds = list(comparison.table["kind"].unique())
    return render(
        "comparison/page.html",
        title="Comparison",
        c=comparison,
        kinds=[(kind, KINDS.get(kind, "lists"), _section(comparison, kind)) for kind in kinds],
        costs=COSTS,
        chosen=chosen(comparison),
        runs=comparison.runs[comparison.runs["kind"] == kinds[0]].to_dict("records"),
    )


def _section(comparison: Comparison, kind: str) -> dict[str, object]:
    effects = comparison.effects
    return {
        "rows": numbered(comparison.table, kind),
        "sentences": sentences(comparison, kind),
        "figures": figures(comparison, kind),
        "effects": effects[effects["kind"] == kind].to_dict("records") if len(effects) else [],
    }
