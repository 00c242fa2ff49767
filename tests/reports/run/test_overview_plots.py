"""The logged figures show the evaluation's values, chance levels, supports and bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reranker.reports.run import overview_plots
from tests.helpers.tracked import evaluation, full_evaluation, one_user_evaluation


def test_bars_have_the_values_with_the_best_on_top_and_the_chance_level() -> None:
    figure = overview_plots.bars(evaluation().summary)
    assert len(figure.axes) == 2
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["random", "BM25", "fine-tuned"]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.2, 0.4, 0.6])
    chance = [line for line in axis.lines if list(line.get_ydata()) == [0, 1]]
    assert [line.get_xdata()[0] for line in chance] == pytest.approx([0.2])
    assert {"0.200", "0.400", "0.600", "chance"} <= {t.get_text() for t in axis.texts}


def test_every_figure_of_an_evaluation_can_be_drawn(tmp_path: Path) -> None:
    figures = overview_plots.evaluation_figures(evaluation())
    kinds = ("uniform", "popularity")
    assert set(figures) == {
        "ndcg_10",
        *(f"ndcg_by_k_{k}" for k in kinds),
        *(f"users_{k}" for k in kinds),
    }
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")


def test_the_users_figure_compares_the_model_with_the_best_baseline() -> None:
    figures = overview_plots.evaluation_figures(evaluation())
    [axis] = figures["users_popularity"].axes
    assert axis.get_title(loc="left") == "Users by NDCG@10, popularity lists"
    assert [line.get_label() for line in axis.lines] == [
        "fine-tuned, median 0.50",
        "BM25, median 0.30",
    ]


def test_slices_have_their_support_and_chance(tmp_path: Path) -> None:
    figures = overview_plots.evaluation_figures(full_evaluation())
    assert {"slices_uniform", "calibration_uniform"} <= set(figures)
    assert "slices_popularity" not in figures
    [axis] = figures["slices_uniform"].axes
    labels = [t.get_text() for t in axis.get_yticklabels()]
    assert labels == [
        "2-3 history books, n = 3",
        "4-7 history books, n = 1",
        "unrated book: yes, n = 3",
    ]
    values = [list(np.asarray(line.lines[0].get_xdata())) for line in axis.containers]
    assert values == [[0.6, 0.6, 0.6], [0.4, 0.4, 0.4]]
    figures["slices_uniform"].savefig(tmp_path / "slices.png")
    assert figures["slices_uniform"].get_suptitle().startswith("NDCG@10 by slice, uniform lists")


def test_a_curve_has_its_band() -> None:
    curve, bands = (
        frame[frame["kind"] == "uniform"]
        for frame in (full_evaluation().curve, full_evaluation().bands)
    )
    [axis] = overview_plots.curves(curve, bands).axes
    [band] = axis.collections
    assert band.get_paths()[0].get_extents().extents.tolist() == pytest.approx([1, 0.1, 20, 0.7])


def test_the_bars_of_one_user_have_no_intervals(tmp_path: Path) -> None:
    figures = overview_plots.evaluation_figures(one_user_evaluation())
    figures["ndcg_10"].savefig(tmp_path / "ndcg_10.png")
    axis = figures["ndcg_10"].axes[0]
    assert axis.get_xlim() == pytest.approx((0, 0.6 * 1.16))
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.2, 0.4, 0.6])
    assert [t.xy[0] for t in axis.texts if t.get_text() == "0.400"] == pytest.approx([0.4])


def test_every_scorer_is_named_in_the_figures_that_compare_all() -> None:
    names = {"random", "BM25", "fine-tuned"}
    figures = overview_plots.evaluation_figures(evaluation())
    labels = [{t.get_text() for t in a.get_yticklabels()} for a in figures["ndcg_10"].axes]
    assert labels == [names, names]
    for kind in ("uniform", "popularity"):
        [axis] = figures[f"ndcg_by_k_{kind}"].axes
        assert {t.get_text() for t in axis.texts} == names
        assert len(axis.lines) == len(names)
