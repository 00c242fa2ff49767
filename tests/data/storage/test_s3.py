"""Requests to a real S3 server, straight and through a proxy that refuses; no secret is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reranker.config import DataConfig, StorageConfig
from reranker.data.storage import folders, s3
from reranker.errors import ConfigError
from tests.helpers import swift
from tests.helpers.flaky import Flaky
from tests.helpers.objects import NAMES, contents, message, written

pytestmark = pytest.mark.usefixtures("credentials")
slow = pytest.mark.slow


@slow
@pytest.mark.parametrize("status", [400, 401, 501])
def test_a_store_that_refuses_new_checksum_headers(
    status: int,
    named_files: Path,
    s3_root: str,
    between: Flaky,
    through: StorageConfig,
    tmp_path: Path,
) -> None:
    between.refuse_checksums = status
    folders.push(named_files, s3_root, through)
    folders.pull(s3_root, tmp_path / "copy", through)
    assert contents(tmp_path / "copy") == NAMES
    new = replace(through, checksum="when_supported")
    hint = "may refuse new checksum headers; set data.storage.checksum=when_required"
    assert hint in message(
        lambda: folders.push(written(tmp_path / "other", {"b": b"1"}), s3_root, new)
    )
    assert hint in message(lambda: folders.pull(s3_root, tmp_path / "third", new))


@slow
def test_new_checksum_headers_work_where_they_are_known(
    named_files: Path, s3_root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    new = replace(through, checksum="when_supported")
    folders.push(named_files, s3_root, new)
    folders.pull(s3_root, tmp_path / "copy", new)
    assert contents(tmp_path / "copy") == NAMES
    assert all(any(name.startswith("x-amz-checksum-") for name in h) for _, h in between.of("PUT"))


@slow
def test_a_failure_says_what_to_do(
    s3_root: str, storage_cfg: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such bucket" in message(
        lambda: folders.pull("s3://missing/x", tmp_path, storage_cfg)
    )
    assert "no such bucket" in message(
        lambda: folders.push(written(tmp_path / "s", NAMES), "s3://missing/x", storage_cfg)
    )
    assert "no objects; found nothing" in message(
        lambda: folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    )
    with s3.Root(s3_root, storage_cfg) as remote:
        assert "no such object" in message(lambda: remote.head("missing"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{swift.SECRET_KEY}x")
    assert "does not know this pair of key id and secret" in message(
        lambda: folders.list_objects(s3_root, storage_cfg)
    )
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials (PartialCredentialsError)" in message(
        lambda: folders.list_objects(s3_root, storage_cfg)
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no credentials (NoCredentialsError)" in message(
        lambda: folders.list_objects(s3_root, storage_cfg)
    )
    assert not (tmp_path / "copy").exists()


@slow
@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (400, "ExpiredToken", "the session token has expired"),
        (403, "RequestTimeTooSkewed", "this machine's clock is off"),
        (403, "AccessDenied", "these credentials may not do this"),
        (503, "SlowDown", "still throttled after 2 attempts"),
        (500, "InternalError", "the store failed at each of 2 attempts"),
        (400, "AuthorizationHeaderMalformed", "not in region auto; set data.storage.region"),
        (400, "InvalidRequest", "the store refuses the request"),
        (418, "<script>&amp;\x1b", "the store refuses the request"),
    ],
)
def test_an_answer_of_the_store_is_told_apart(
    status: int, code: str, said: str, s3_root: str, between: Flaky, through: StorageConfig
) -> None:
    between.answers = [(status, code)] * 2
    text = message(lambda: folders.list_objects(s3_root, replace(through, max_attempts=2)))
    assert said in text
    assert text.isprintable()


def test_a_dead_endpoint_is_named() -> None:
    [port] = swift._free_ports(1)
    cfg = StorageConfig(endpoint_url=f"http://127.0.0.1:{port}", region="auto", max_attempts=1)
    text = message(lambda: folders.list_objects("s3://books", cfg))
    assert (
        f"http://127.0.0.1:{port} was not reached in 1 attempts (EndpointConnectionError)" in text
    )


@pytest.mark.parametrize(
    ("root", "endpoint", "named"),
    [
        (f"s3://key:{swift.SECRET_KEY}@books/x", None, "data.root=s3://…"),
        ("gs://books/x", None, "data.root=gs://… is neither a folder nor s3://BUCKET/PREFIX"),
        ("s3:///x", None, "data.root=s3://…"),
        (
            "s3://books/x",
            f"https://key:{swift.SECRET_KEY}@host",
            "data.storage.endpoint_url is not of the form",
        ),
        (
            "s3://books/x",
            f"https://host/?token={swift.SECRET_KEY}",
            "data.storage.endpoint_url is not of the form",
        ),
        ("s3://books/x", "host:9000", "data.storage.endpoint_url is not of the form"),
        ("s3://books/x", "https://host:port", "data.storage.endpoint_url is not of the form"),
    ],
)
def test_a_root_or_endpoint_with_a_secret_is_refused_and_not_repeated(
    root: str, endpoint: str, named: str
) -> None:
    cfg = StorageConfig(endpoint_url=endpoint)
    for call in (
        lambda: folders.list_objects(root, cfg),
        lambda: folders.local_root(DataConfig(root=root, storage=cfg), Path("x")),
    ):
        assert named in message(call, ConfigError)


@slow
def test_the_secret_is_in_no_output(
    named_files: Path,
    s3_root: str,
    storage_cfg: StorageConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    done = [
        folders.push(named_files, s3_root, storage_cfg),
        folders.pull(s3_root, tmp_path / "copy", storage_cfg),
        folders.list_objects(s3_root, storage_cfg),
    ]
    with s3.Root(s3_root, storage_cfg) as remote:
        shown = repr((done, storage_cfg, remote, remote.client, vars(remote)))
    out, err = capfd.readouterr()
    assert swift.SECRET_KEY not in shown + out + err + caplog.text
    kept = [p for p in (tmp_path / "copy").rglob("*") if p.is_file()]
    assert len(kept) > len(NAMES)  # with the lock
    assert not any(swift.SECRET_KEY.encode() in p.read_bytes() for p in kept)
