"""Files pushed to a real S3 server are pulled unchanged, and runs read them like a local folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from reranker.cache import Cache, digest, digest_file
from reranker.cli import main
from reranker.config import DataConfig, EngineConfig, SamplingConfig, StorageConfig
from reranker.data import load, load_tables
from reranker.data.sources import bookdb
from reranker.data.storage import folders, s3
from reranker.sampling import build_pairs
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.objects import (
    BUCKET,
    FILES,
    error_message,
    put_object,
    read_files,
    s3_client,
    write_files,
)

pytestmark = pytest.mark.usefixtures("credentials")
slow = pytest.mark.slow


@slow
def test_pushed_files_are_pulled_unchanged(
    named_files: Path, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    pushed = folders.push(named_files, s3_root, storage_cfg)
    assert (pushed.moved, pushed.kept, pushed.n_bytes) == (
        tuple(sorted(FILES)),
        (),
        sum(map(len, FILES.values())),
    )
    listed = folders.list_objects(s3_root, storage_cfg)
    assert {o.name: (o.size, o.sha256) for o in listed} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in FILES.items()
    }
    pulled = folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    assert read_files(tmp_path / "copy") == FILES
    assert (set(pulled.moved), pulled.kept) == (set(FILES), ())
    assert set(pulled.checked.values()) == {"sha256"}


@slow
def test_manifests_are_uploaded_last(
    tmp_path: Path, s3_root: str, proxy: FaultyProxy, proxy_cfg: StorageConfig
) -> None:
    folder = write_files(
        tmp_path / "source",
        {f"{n}/manifest.json": b"{}" for n in "ab"} | {f"b/{i}": b"1" for i in "xyz"},
    )
    folders.push(folder, s3_root, proxy_cfg)
    order = [path.rsplit("/", 1)[-1] for path, _ in proxy.object_requests("PUT")]
    assert (sorted(order[:3]), order[3:]) == (["x", "y", "z"], ["manifest.json"] * 2)


@slow
def test_a_large_file_is_uploaded_in_parts(
    s3_root: str, storage_cfg: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 2**20)  # the minimum that S3 allows
    data = bytes(range(256)) * (11 * 2**20 // 256)
    folders.push(write_files(tmp_path / "source", {"large": data}) / "large", s3_root, storage_cfg)
    [large] = folders.list_objects(s3_root, storage_cfg)
    assert (large.etag[-3:], large.md5, large.sha256) == (
        '-3"',
        None,
        hashlib.sha256(data).hexdigest(),
    )
    pulled = folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    assert pulled.checked == {"large": "sha256"}
    assert digest_file(tmp_path / "copy" / "large") == large.sha256


@slow
def test_a_file_that_changes_during_the_upload_is_an_error(
    named_files: Path, s3_root: str, proxy: FaultyProxy, proxy_cfg: StorageConfig
) -> None:
    proxy.on_upload = lambda: (named_files / "a.parquet").write_bytes(b"new")
    assert "a.parquet changed while it was pushed" in error_message(
        lambda: folders.push(named_files / "a.parquet", s3_root, proxy_cfg)
    )


def test_push_rejects_missing_files_empty_folders_and_equal_names(tmp_path: Path) -> None:
    cfg = StorageConfig()
    (tmp_path / "a").mkdir()
    assert "no such folder" in error_message(
        lambda: folders.push(tmp_path / "missing", "s3://books", cfg)
    )
    assert "no files to push" in error_message(
        lambda: folders.push(tmp_path / "a", "s3://books", cfg)
    )
    write_files(tmp_path, {"a/x": b"1", "b/x": b"2"})
    assert "have 1 names" in error_message(
        lambda: folders.push([tmp_path / "a/x", tmp_path / "b/x"], "s3://books", cfg)
    )
    assert "no such file" in error_message(
        lambda: folders.push([tmp_path / "c"], "s3://books", cfg)
    )


@slow
def test_tables_of_a_remote_root_equal_those_of_the_folder(
    data_cfg: DataConfig, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(Path(str(data_cfg.root)), s3_root, storage_cfg)
    remote = replace(data_cfg, root=s3_root, storage=storage_cfg)
    copy = folders.local_root(remote, tmp_path / "cache", bookdb.SCHEMA)
    name = digest({"endpoint": storage_cfg.endpoint_url, "root": f"{s3_root}/"})[:16]
    assert copy == tmp_path / "cache" / "remote" / name
    assert read_files(copy) == read_files(Path(str(data_cfg.root)))
    here, there = (
        load_tables(replace(data_cfg, root=str(r)), Cache(tmp_path / c))
        for r, c in ((data_cfg.root, "1"), (copy, "2"))
    )
    assert here.digest == there.digest


@slow
def test_pairs_of_a_remote_root_equal_those_of_the_folder(
    data_cfg: DataConfig, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(Path(str(data_cfg.root)), s3_root, storage_cfg)
    built = []
    for source in (data_cfg, replace(data_cfg, root=s3_root, storage=storage_cfg)):
        cache = Cache(tmp_path / str(len(built)))
        corpus = load(source, cache)
        built.append(build_pairs(corpus, SamplingConfig(), EngineConfig("synchronous", 1), cache))
    assert built[0].digest == built[1].digest
    assert built[0].path.read_bytes() == built[1].path.read_bytes()


@slow
def test_the_local_copy_is_synchronised_with_the_store(
    swift_port: int, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    for name in ("a.csv", "b.csv", "b.txt", "sub/c.csv"):
        put_object(swift_port, s3_root, name, data=name.encode())
    data = DataConfig(root=f"{s3_root}/", storage=storage_cfg)
    assert "no object matches *.gz" in error_message(
        lambda: folders.local_root(data, tmp_path, ["*.gz"])
    )
    copy = folders.local_root(data, tmp_path, ["*.csv"])
    assert copy and read_files(copy) == {"a.csv": b"a.csv", "b.csv": b"b.csv"}
    put_object(swift_port, s3_root, "a.csv", data=b"new")
    s3_client(swift_port).delete_object(
        Bucket=BUCKET, Key=f"{s3_root.removeprefix(f's3://{BUCKET}/')}/b.csv"
    )
    assert folders.local_root(data, tmp_path, ["*.csv"]) == copy
    assert read_files(copy) == {"a.csv": b"new"}


def test_a_local_root_is_returned_as_it_is_and_can_be_listed(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "source", FILES)
    assert folders.local_root(DataConfig(root=str(folder)), tmp_path) == folder
    assert folders.local_root(DataConfig(), tmp_path) is None
    listed = folders.list_objects(str(folder), StorageConfig())
    assert [(o.name, o.size, o.sha256) for o in listed] == [
        (n, len(FILES[n]), None) for n in sorted(FILES)
    ]
    assert "no such folder" in error_message(
        lambda: folders.list_objects(str(tmp_path / "no"), StorageConfig())
    )


@slow
def test_the_command_line_can_push_list_and_pull(
    named_files: Path,
    s3_root: str,
    storage_cfg: StorageConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--endpoint-url", str(storage_cfg.endpoint_url), "--region", "auto"]
    assert main.main(["data", "push", str(named_files), s3_root, *flags]) == 0
    assert main.main(["data", "pull", s3_root, str(tmp_path / "copy"), *flags]) == 0
    n_bytes = sum(map(len, FILES.values()))
    out = capsys.readouterr().out
    assert f"{s3_root}/: 4 files uploaded ({n_bytes / 1000:.1f} kB), 0 already there." in out
    assert f"copy: 4 files downloaded ({n_bytes / 1000:.1f} kB), 0 already there." in out
    assert main.main(["data", "list", s3_root, "--format", "json", *flags]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: (row["bytes"], row["sha256"]) for row in rows} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in FILES.items()
    }
    assert main.main(["data", "list", "s3://missing", *flags]) == 2
    assert "reranker: s3://missing/: there is no such bucket" in capsys.readouterr().err
