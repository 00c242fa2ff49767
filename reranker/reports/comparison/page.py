"""Render a comparison of runs as one self-contained HTML page, write it and log it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.errors import ComparisonError
from reranker.reports.comparison.compare import Comparison
from reranker.reports.comparison.plots import COSTS, figures
from reranker.reports.comparison.summary import number_rows, selection, sentences
from reranker.reports.page import render, write_page
from reranker.reports.scorers import find_list_kind, scorer_name
from reranker.tracking.metric_names import MAX_PARAM

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log(client: MlflowClient, run_id: str, comparison: Comparison) -> None:
    """Log the page as `compare.html` and the table as `comparison.parquet` on a run.

    The tag `comparison` names the metric, the scorer, the list kinds and the best configuration on
    dev; the tag `comparison.<kind>` gives the reason why a list kind was not compared.
    """
    kinds = ", ".join(comparison.table["kind"].unique())
    compared = f"{comparison.metric} of {comparison.scorer} on {kinds} lists"
    tag = f"{compared}; best on dev: {comparison.best}"
    client.set_tag(run_id, "comparison", tag[:MAX_PARAM])
    for kind, reason in comparison.refused.items():
        client.set_tag(run_id, f"comparison.{kind}", f"none: {reason}"[:MAX_PARAM])
    client.log_text(run_id, page(comparison), "compare.html")
    with tempfile.TemporaryDirectory(prefix="reranker-compare-") as folder:
        path = Path(folder) / "comparison.parquet"
        columns = {"metric": comparison.metric, "scorer": comparison.scorer}
        comparison.table.assign(**columns).to_parquet(path, index=False)
        client.log_artifact(run_id, str(path))


def write(comparison: Comparison, path: Path) -> None:
    """Write the page atomically.

    Raises:
        ComparisonError: The path cannot be written to.
    """
    try:
        write_page(path, page(comparison))
    except OSError as error:
        raise ComparisonError(
            f"{path}: the page cannot be written ({error.strerror}); choose another path."
        ) from error


def page(comparison: Comparison) -> str:
    """Return the comparison as HTML; every name and value of a run is escaped."""
    kinds = list(comparison.table["kind"].unique())
    return render(
        "comparison/page.html",
        title="Comparison",
        c=comparison,
        scorer=scorer_name(comparison.scorer),
        kinds=[(find_list_kind(kind), _section(comparison, kind)) for kind in kinds],
        costs=COSTS,
        selection=selection(comparison),
        runs=comparison.runs[comparison.runs["kind"] == kinds[0]].to_dict("records"),
    )


def _section(comparison: Comparison, kind: str) -> dict[str, object]:
    effects = comparison.effects
    return {
        "rows": number_rows(comparison.table, kind),
        "sentences": sentences(comparison, kind),
        "figures": figures(comparison, kind),
        "effects": effects[effects["kind"] == kind].to_dict("records") if len(effects) else [],
    }
