"""The page's figures show the values of the evaluation and of the training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reranker.reports.run import plots
from tests.helpers.tracked import full_evaluation


def test_the_users_figure_steps_by_one_share_per_user_with_a_value() -> None:
    per_user = pd.DataFrame({"scorer": "bm25", "ndcg_10": [0.5, 0.6, np.nan, 0.7]})
    [axis] = plots.users(per_user, ["bm25"]).axes
    [line] = axis.lines
    share = dict(zip(plots.THRESHOLDS.round(3).tolist(), line.get_ydata(), strict=True))
    at = [share[x] for x in (0.0, 0.495, 0.505, 0.6, 0.695, 0.705, 1.0)]
    assert at == pytest.approx([0, 0, 1 / 3, 2 / 3, 2 / 3, 1, 1])
    assert line.get_label() == "BM25, median 0.60"


def test_the_calibration_curve_is_drawn_with_the_diagonal() -> None:
    [axis] = plots.calibration(full_evaluation().calibration).axes
    diagonal, curve = (np.asarray(line.get_xydata()).tolist() for line in axis.lines)
    assert diagonal == [[0, 0], [1, 1]]
    assert curve == [[0.1, 0.0], [0.8, 0.4]]


def test_the_training_figure_marks_the_best_dev_step() -> None:
    logs = [
        {"step": 1.0, "loss": 0.7},
        {"step": 2.0, "dev_ndcg_10": 0.4},
        {"step": 3.0, "loss": 0.5},
        {"step": 4.0, "dev_ndcg_10": 0.6},
        {"step": 6.0, "dev_ndcg_10": 0.5},
    ]
    above, below = plots.training(logs).axes
    assert list(np.asarray(above.lines[0].get_xdata())) == [1, 3]
    assert [t.get_text() for t in below.texts] == ["best 0.600 at step 4"]


def test_a_training_without_dev_values_marks_nothing() -> None:
    _, below = plots.training([{"step": 1.0, "loss": 0.7}]).axes
    assert list(below.texts) == []
