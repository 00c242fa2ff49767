"""The pages of `reranker ui` show runs, curves and artifacts in a real browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reranker.config import ROOT, Config, DataConfig, ModelConfig, TrackingConfig
from reranker.tracking import open_store, start
from tests.helpers import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

WAIT_MS = 60_000  # the first page takes 5 s, and several times as long on a busy machine
# MLflow draws a run's line more than once. The runs here have different slopes, so that the number
# of distinct paths is the number of runs.
HAS_CURVES = """([index, n_runs]) => {
    const lines = chart =>
        [...chart.querySelectorAll("path.js-line")].map(line => line.getAttribute("d"));
    const charts =
        [...document.querySelectorAll(".js-plotly-plot")].filter(chart => lines(chart).length);
    return charts.length > index && new Set(lines(charts[index])).size === n_runs;
}"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
    ),
]


def test_a_chromium_that_does_not_run_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium.find() == (None, "no chromium, chromium-browser, google-chrome on PATH")
    stub = tmp_path / "chromium-browser"
    stub.write_text("#!/bin/sh\necho 'install the snap' >&2\nexit 1\n")
    stub.chmod(0o755)
    assert chromium.find() == (None, f"{stub} --version: exit code 1: install the snap")
    real = tmp_path / "google-chrome"
    real.write_text("#!/bin/sh\necho 1.0\n")
    real.chmod(0o755)
    assert chromium.find() == (str(real), "")


@pytest.fixture(scope="module")
def config(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Return a config whose store has the runs `quick demo` and `patient demo` of five steps."""
    folder = tmp_path_factory.mktemp("ui")
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlruns/mlflow.db", experiment="pages")
    cfg = Config(data=DataConfig(name="demo"), tracking=tracking, cache_dir=str(folder))
    for name, slope in (("quick", 0.1), ("patient", 0.05)):
        cfg.model = ModelConfig(name=name, source="random")
        with start(cfg, folder / name) as log:
            for step in range(5):
                values = {"loss": 0.7 - slope * step, "dev_ndcg_10": slope * step}
                log.training_metrics(values, step)
    return cfg


@pytest.fixture(scope="module")
def address(config: Config) -> Iterator[str]:
    """Yield the address of a running `reranker ui`; SIGTERM then stops it and its children."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "reranker.cli.main", "ui"]
    command += ["--port", str(port), "--tracking-uri", config.tracking.uri]
    server = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        yield _wait_until_healthy(f"http://127.0.0.1:{port}", server)
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGINT)
            server.wait(timeout=20)


def _wait_until_healthy(address: str, server: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 90
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return address
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer; exit code {server.poll()}")


@pytest.fixture(scope="module")
def page(address: str, chromium_path: str) -> Iterator[Page]:
    with chromium.launched(chromium_path) as browser:
        opened = browser.new_page(viewport={"width": 1400, "height": 900})
        opened.set_default_timeout(WAIT_MS)
        yield opened


def open_page(page: Page, address: str, path: str) -> set[str]:
    """Open a page of the UI and return the set of requested URLs, which keeps growing."""
    requested: set[str] = set()
    page.on("request", lambda request: requested.add(request.url))
    page.goto(f"{address}/#/{path}")
    return requested


def test_the_experiments_page_lists_both_runs_and_sends_no_request_to_another_host(
    page: Page, address: str, config: Config
) -> None:
    _, experiment_id = open_store(config.tracking)
    requested = open_page(page, address, f"experiments/{experiment_id}/runs")
    for name in ("quick demo", "patient demo"):
        page.get_by_role("link", name=name).first.wait_for()
    assert [url for url in requested if not url.startswith((address, "data:", "blob:"))] == []


def test_the_chart_view_draws_the_curves_of_both_runs(
    page: Page, address: str, config: Config
) -> None:
    _, experiment_id = open_store(config.tracking)
    open_page(page, address, f"experiments/{experiment_id}/runs?compareRunsMode=CHART")
    for index, metric in enumerate(("dev/ndcg_10", "train/loss")):
        page.get_by_text(metric, exact=True).first.wait_for()
        page.wait_for_function(HAS_CURVES, arg=[index, 2])


def test_the_page_of_a_run_draws_its_metrics(page: Page, address: str, config: Config) -> None:
    client, experiment_id = open_store(config.tracking)
    [run] = client.search_runs([experiment_id], "attributes.run_name = 'quick demo'")
    open_page(page, address, f"experiments/{experiment_id}/runs/{run.info.run_id}/model-metrics")
    page.get_by_role("heading", name="quick demo").first.wait_for()
    for index in (0, 1):
        page.wait_for_function(HAS_CURVES, arg=[index, 1])


def test_the_page_of_a_run_shows_an_artifact(page: Page, address: str, config: Config) -> None:
    client, experiment_id = open_store(config.tracking)
    [run] = client.search_runs([experiment_id], "attributes.run_name = 'quick demo'")
    open_page(
        page, address, f"experiments/{experiment_id}/runs/{run.info.run_id}/artifacts/result.json"
    )
    page.get_by_text('"status": "FINISHED"').first.wait_for()
