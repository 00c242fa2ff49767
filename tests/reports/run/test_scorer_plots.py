"""Figures stand at the evaluation's values, with their chance, support and bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reranker.reports.run import scorer_plots
from tests.helpers.tracked import checked, evaluation, of_one_user


def test_bars_stand_at_the_values_best_on_top_with_the_chance_level() -> None:
    figure = scorer_plots.bars(evaluation())
    assert len(figure.axes) == 2
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == [
        "random (chance)",
        "BM25",
        "fine-tuned",
    ]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.2, 0.4, 0.6])
    chance = [line for line in axis.lines if list(line.get_ydata()) == [0, 1]]
    assert [line.get_xdata()[0] for line in chance] == pytest.approx([0.2])
    assert {"0.200", "0.400", "0.600", "chance"} <= {t.get_text() for t in axis.texts}


def test_the_users_figure_steps_by_one_share_per_user_with_a_value() -> None:
    axis = scorer_plots.users(evaluation(), "uniform").axes[0]
    assert [t.get_text().split(",")[0] for t in axis.texts] == ["fine-tuned", "BM25"]
    x, y = axis.lines[0].get_data()
    assert list(np.asarray(x)) == pytest.approx([0, 0.5, 0.6, 0.7, 1])
    assert list(np.asarray(y)) == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_the_training_figure_marks_the_best_dev_step() -> None:
    logs = [
        {"step": 1.0, "loss": 0.7},
        {"step": 2.0, "dev_ndcg_10": 0.4},
        {"step": 3.0, "loss": 0.5},
    ]
    logs += [{"step": 4.0, "dev_ndcg_10": 0.6}, {"step": 6.0, "dev_ndcg_10": 0.5}]
    above, below = scorer_plots.training(logs).axes
    assert list(np.asarray(above.lines[0].get_xdata())) == [1, 3]
    assert [t.get_text() for t in below.texts] == ["best 0.600 at step 4"]


def test_every_figure_of_an_evaluation_can_be_drawn(tmp_path: Path) -> None:
    figures = scorer_plots.evaluation_figures(evaluation())
    kinds = ("uniform", "popularity")
    assert set(figures) == {
        "ndcg_10",
        *(f"ndcg_by_k_{k}" for k in kinds),
        *(f"users_{k}" for k in kinds),
    }
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")


def test_slices_stand_with_their_support_and_chance(tmp_path: Path) -> None:
    figures = scorer_plots.evaluation_figures(checked())
    assert {"slices_uniform", "calibration_uniform"} <= set(
        figures
    ) and "slices_popularity" not in figures
    [axis] = figures["slices_uniform"].axes
    labels = [t.get_text() for t in axis.get_yticklabels()]
    assert labels == ["2-3 context books, n = 3", "4-7 context books, n = 1", "cold: yes, n = 3"]
    values = [list(np.asarray(line.lines[0].get_xdata())) for line in axis.containers]
    assert values == [[0.6, 0.6, 0.6], [0.4, 0.4, 0.4]]
    figures["slices_uniform"].savefig(tmp_path / "slices.png")
    assert figures["slices_uniform"].get_suptitle().startswith("NDCG@10 by slice, uniform lists")


def test_the_calibration_curve_is_beside_the_diagonal() -> None:
    [axis] = scorer_plots.calibration(checked(), "uniform").axes
    diagonal, curve = (np.asarray(line.get_xydata()).tolist() for line in axis.lines)
    assert diagonal == [[0, 0], [1, 1]]
    assert curve == [[0.1, 0.0], [0.8, 0.4]]


def test_a_curve_has_its_band() -> None:
    [axis] = scorer_plots.curves(checked(), "uniform").axes
    [band] = axis.collections
    assert band.get_paths()[0].get_extents().extents.tolist() == pytest.approx([1, 0.1, 20, 0.7])


def test_the_figures_of_one_user_stand_without_intervals(tmp_path: Path) -> None:
    figures = scorer_plots.evaluation_figures(of_one_user())
    figures["ndcg_10"].savefig(tmp_path / "ndcg_10.png")
    axis = figures["ndcg_10"].axes[0]
    assert axis.get_xlim() == pytest.approx((0, 0.6 * 1.16))
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.2, 0.4, 0.6])
    assert [t.xy[0] for t in axis.texts if t.get_text() == "0.400"] == pytest.approx([0.4])


def test_every_scorer_is_named_in_the_figures_that_compare_them() -> None:
    names = {"random (chance)", "BM25", "fine-tuned"}
    figures = scorer_plots.evaluation_figures(evaluation())
    assert [{t.get_text() for t in axis.get_yticklabels()} for axis in figures["ndcg_10"].axes] == [
        names,
        names,
    ]
    for kind in ("uniform", "popularity"):
        [axis] = figures[f"ndcg_by_k_{kind}"].axes
        assert {t.get_text() for t in axis.texts} == names
        assert len(axis.lines) == len(names)
