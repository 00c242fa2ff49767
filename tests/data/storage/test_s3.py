"""Errors of an S3 server are explained, and no output contains a secret."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reranker.config import DataConfig, StorageConfig
from reranker.data.storage import folders, s3
from reranker.errors import ConfigError
from tests.helpers import swift
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.objects import FILES, error_message, read_files, write_files

pytestmark = pytest.mark.usefixtures("credentials")
slow = pytest.mark.slow


@slow
@pytest.mark.parametrize("status", [400, 401, 501])
def test_a_store_without_the_newer_checksum_headers(
    status: int,
    named_files: Path,
    s3_root: str,
    proxy: FaultyProxy,
    proxy_cfg: StorageConfig,
    tmp_path: Path,
) -> None:
    proxy.checksum_status = status
    folders.push(named_files, s3_root, proxy_cfg)
    folders.pull(s3_root, tmp_path / "copy", proxy_cfg)
    assert read_files(tmp_path / "copy") == FILES
    new = replace(proxy_cfg, checksum="when_supported")
    hint = "may not support the newer checksum headers; set data.storage.checksum=when_required"
    assert hint in error_message(
        lambda: folders.push(write_files(tmp_path / "other", {"b": b"1"}), s3_root, new)
    )
    assert hint in error_message(lambda: folders.pull(s3_root, tmp_path / "third", new))


@slow
def test_the_newer_checksum_headers_work_if_the_store_supports_them(
    named_files: Path, s3_root: str, proxy: FaultyProxy, proxy_cfg: StorageConfig, tmp_path: Path
) -> None:
    new = replace(proxy_cfg, checksum="when_supported")
    folders.push(named_files, s3_root, new)
    folders.pull(s3_root, tmp_path / "copy", new)
    assert read_files(tmp_path / "copy") == FILES
    assert all(
        any(name.startswith("x-amz-checksum-") for name in h)
        for _, h in proxy.object_requests("PUT")
    )


@slow
def test_an_error_says_what_to_do(
    s3_root: str, storage_cfg: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such bucket" in error_message(
        lambda: folders.pull("s3://missing/x", tmp_path, storage_cfg)
    )
    assert "no such bucket" in error_message(
        lambda: folders.push(write_files(tmp_path / "s", FILES), "s3://missing/x", storage_cfg)
    )
    assert "no objects; found nothing" in error_message(
        lambda: folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    )
    with s3.Root(s3_root, storage_cfg) as remote:
        assert "no such object" in error_message(lambda: remote.head("missing"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{swift.SECRET_KEY}x")
    assert "does not accept this key id and secret" in error_message(
        lambda: folders.list_objects(s3_root, storage_cfg)
    )
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials (PartialCredentialsError)" in error_message(
        lambda: folders.list_objects(s3_root, storage_cfg)
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no credentials (NoCredentialsError)" in error_message(
        lambda: folders.list_objects(s3_root, storage_cfg)
    )
    assert not (tmp_path / "copy").exists()


@slow
@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (400, "ExpiredToken", "the session token has expired"),
        (403, "RequestTimeTooSkewed", "this machine's clock differs"),
        (403, "AccessDenied", "these credentials do not allow this"),
        (503, "SlowDown", "still throttled after 2 attempts"),
        (500, "InternalError", "the store failed at each of 2 attempts"),
        (400, "AuthorizationHeaderMalformed", "not in region auto; set data.storage.region"),
        (400, "InvalidRequest", "the store refuses the request"),
        (418, "<script>&amp;\x1b", "the store refuses the request"),
    ],
)
def test_each_response_of_the_store_has_its_own_message(
    status: int, code: str, text: str, s3_root: str, proxy: FaultyProxy, proxy_cfg: StorageConfig
) -> None:
    proxy.errors = [(status, code)] * 2
    cfg = replace(proxy_cfg, max_attempts=2)
    message = error_message(lambda: folders.list_objects(s3_root, cfg))
    assert text in message
    assert message.isprintable()


def test_a_dead_endpoint_is_named() -> None:
    [port] = swift.free_ports(1)
    cfg = StorageConfig(endpoint_url=f"http://127.0.0.1:{port}", region="auto", max_attempts=1)
    reason = "was not reached in 1 attempts (EndpointConnectionError)"
    message = error_message(lambda: folders.list_objects("s3://books", cfg))
    assert f"http://127.0.0.1:{port} {reason}" in message


@pytest.mark.parametrize(
    ("root", "endpoint", "text"),
    [
        (f"s3://key:{swift.SECRET_KEY}@books/x", None, "data.root=s3://…"),
        ("gs://books/x", None, "data.root=gs://… is neither a folder nor s3://BUCKET/PREFIX"),
        ("s3:///x", None, "data.root=s3://…"),
        (
            "s3://books/x",
            f"https://key:{swift.SECRET_KEY}@host",
            "data.storage.endpoint_url must have the form",
        ),
        (
            "s3://books/x",
            f"https://host/?token={swift.SECRET_KEY}",
            "data.storage.endpoint_url must have the form",
        ),
        ("s3://books/x", "host:9000", "data.storage.endpoint_url must have the form"),
        ("s3://books/x", "https://host:port", "data.storage.endpoint_url must have the form"),
    ],
)
def test_a_root_or_endpoint_with_a_secret_is_rejected_without_showing_it(
    root: str, endpoint: str, text: str
) -> None:
    cfg = StorageConfig(endpoint_url=endpoint)
    for call in (
        lambda: folders.list_objects(root, cfg),
        lambda: folders.local_root(DataConfig(root=root, storage=cfg), Path("x")),
    ):
        assert text in error_message(call, ConfigError)


@slow
def test_no_output_contains_the_secret(
    named_files: Path,
    s3_root: str,
    storage_cfg: StorageConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    results = [
        folders.push(named_files, s3_root, storage_cfg),
        folders.pull(s3_root, tmp_path / "copy", storage_cfg),
        folders.list_objects(s3_root, storage_cfg),
    ]
    with s3.Root(s3_root, storage_cfg) as remote:
        shown = repr((results, storage_cfg, remote, remote.client, vars(remote)))
    out, err = capfd.readouterr()
    assert swift.SECRET_KEY not in shown + out + err + caplog.text
    written = [p for p in (tmp_path / "copy").rglob("*") if p.is_file()]
    assert len(written) > len(FILES)  # the lock file too
    assert not any(swift.SECRET_KEY.encode() in p.read_bytes() for p in written)
