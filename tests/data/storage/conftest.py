"""Fixtures of the storage tests: a real S3 server, a faulty proxy for it, and files to push."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reranker.cache import digest
from reranker.config import StorageConfig
from tests.helpers import faulty_proxy, swift
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.objects import BUCKET, FILES, s3_client, write_files


@pytest.fixture(scope="session")
def swift_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Swift server with one bucket, which runs for the whole session."""
    folder = tmp_path_factory.mktemp("swift")
    if reason := swift.unsupported_reason(folder):
        pytest.skip(reason)
    with swift.serve(folder) as server:
        s3_client(server.port).create_bucket(Bucket=BUCKET)
        yield server.port


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace all AWS settings of the environment by those of the Swift server."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", swift.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", swift.SECRET_KEY)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def s3_root(request: pytest.FixtureRequest) -> str:
    """A root that no other test uses."""
    return f"s3://{BUCKET}/{digest(request.node.nodeid)[:12]}"


@pytest.fixture
def storage_cfg(swift_port: int) -> StorageConfig:
    """The settings for requests to the server."""
    return StorageConfig(
        endpoint_url=f"http://127.0.0.1:{swift_port}", region="auto", n_transfers=4, max_attempts=3
    )


@pytest.fixture
def proxy(swift_port: int) -> Iterator[FaultyProxy]:
    with faulty_proxy.serve(swift_port) as running:
        yield running


@pytest.fixture
def proxy_cfg(storage_cfg: StorageConfig, proxy: FaultyProxy) -> StorageConfig:
    """The settings for requests through the proxy."""
    return replace(storage_cfg, endpoint_url=proxy.endpoint_url)


@pytest.fixture
def named_files(tmp_path: Path) -> Path:
    """A folder with FILES."""
    return write_files(tmp_path / "source", FILES)
