"""A pull resumes partial downloads, verifies the bytes, and writes nothing outside its folder."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.config import StorageConfig
from reranker.data.storage import folders
from reranker.data.storage.pull import STAGING, _local_path
from reranker.errors import StorageError
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.objects import FILES, error_message, put_multipart, put_object, read_files

pytestmark = pytest.mark.usefixtures("credentials")
slow = pytest.mark.slow


def interrupt_pull(root: str, folder: Path, cfg: StorageConfig) -> None:
    """Start a pull that fails at its first attempt, and leave the partial download."""
    error_message(lambda: folders.pull(root, folder, replace(cfg, max_attempts=1)))


@slow
def test_files_with_the_same_bytes_are_not_transferred_again(
    named_files: Path, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files, s3_root, storage_cfg)
    folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    again = folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    assert (again.moved, set(again.kept), again.n_bytes) == ((), set(FILES), 0)
    (tmp_path / "copy" / "a.parquet").unlink()
    (tmp_path / "copy" / "empty").write_bytes(b"no longer")
    assert set(folders.pull(s3_root, tmp_path / "copy", storage_cfg).moved) == {
        "a.parquet",
        "empty",
    }
    assert read_files(tmp_path / "copy") == FILES
    (named_files / "a.parquet").write_bytes(b"PAR2" * 5000)  # the same size
    pushed = folders.push(tmp_path / "source", s3_root, storage_cfg)
    assert (pushed.moved, len(pushed.kept)) == (("a.parquet",), 3)
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg).moved == ("a.parquet",)


@slow
def test_a_pull_by_name_fetches_these_objects_only(
    named_files: Path, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push([named_files / "a.parquet", named_files / "empty"], s3_root, storage_cfg)
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg, names=["empty"]).moved == (
        "empty",
    )
    assert read_files(tmp_path / "copy") == {"empty": b""}
    assert "no object 'b'; found 'a.parquet', 'empty'" in error_message(
        lambda: folders.pull(s3_root, tmp_path / "copy", storage_cfg, names=["b", "empty"])
    )


@slow
def test_an_interrupted_download_is_resumed(
    named_files: Path, s3_root: str, proxy: FaultyProxy, proxy_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files / "a.parquet", s3_root, proxy_cfg)
    proxy.faults = ["truncate"]
    folders.pull(s3_root, tmp_path / "copy", proxy_cfg)
    assert read_files(tmp_path / "copy") == {"a.parquet": FILES["a.parquet"]}
    assert [h.get("Range") for _, h in proxy.object_requests("GET")] == [None, "bytes=10000-"]


@slow
def test_a_later_pull_resumes_the_download(
    named_files: Path, s3_root: str, proxy: FaultyProxy, proxy_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files / "a.parquet", s3_root, proxy_cfg)
    proxy.faults = ["truncate"]
    interrupt_pull(s3_root, tmp_path / "copy", proxy_cfg)
    folders.pull(s3_root, tmp_path / "copy", proxy_cfg)
    assert read_files(tmp_path / "copy") == {"a.parquet": FILES["a.parquet"]}
    assert [h.get("Range") for _, h in proxy.object_requests("GET")] == [None, "bytes=10000-"]
    assert list((tmp_path / "copy" / STAGING).glob("*.part")) == []


@slow
@pytest.mark.parametrize("partial", [b"wrong" * 2000, b"wrong" * 4000, b"too long" * 5000])
def test_a_wrong_partial_download_is_replaced(
    partial: bytes,
    named_files: Path,
    s3_root: str,
    proxy: FaultyProxy,
    proxy_cfg: StorageConfig,
    tmp_path: Path,
) -> None:
    folders.push(named_files / "a.parquet", s3_root, proxy_cfg)
    proxy.faults = ["truncate"]
    interrupt_pull(s3_root, tmp_path / "copy", proxy_cfg)
    [part] = (tmp_path / "copy" / STAGING).glob("*.part")
    part.write_bytes(partial)
    folders.pull(s3_root, tmp_path / "copy", proxy_cfg)
    assert read_files(tmp_path / "copy") == {"a.parquet": FILES["a.parquet"]}


@slow
def test_the_partial_download_of_a_replaced_object_is_deleted(
    named_files: Path, s3_root: str, proxy: FaultyProxy, proxy_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files / "a.parquet", s3_root, proxy_cfg)
    proxy.faults = ["truncate"]
    interrupt_pull(s3_root, tmp_path / "copy", proxy_cfg)
    (named_files / "a.parquet").write_bytes(b"PAR2" * 5000)
    folders.push(named_files / "a.parquet", s3_root, proxy_cfg)
    folders.pull(s3_root, tmp_path / "copy", replace(proxy_cfg, max_attempts=1))
    assert read_files(tmp_path / "copy") == {"a.parquet": b"PAR2" * 5000}
    assert list((tmp_path / "copy" / STAGING).glob("*.part")) == []


@slow
def test_a_partial_download_that_cannot_be_verified_is_deleted(
    swift_port: int, s3_root: str, proxy: FaultyProxy, proxy_cfg: StorageConfig, tmp_path: Path
) -> None:
    put_multipart(swift_port, s3_root, "parts", data=b"right" * 2000)
    proxy.faults = ["truncate"]
    interrupt_pull(s3_root, tmp_path / "copy", proxy_cfg)
    [part] = (tmp_path / "copy" / STAGING).glob("*.part")
    part.write_bytes(b"wrong" * 1000)
    assert folders.pull(s3_root, tmp_path / "copy", proxy_cfg).checked == {"parts": "size"}
    assert read_files(tmp_path / "copy") == {"parts": b"right" * 2000}


@slow
def test_flipped_bytes_are_downloaded_again_from_the_start(
    named_files: Path, s3_root: str, proxy: FaultyProxy, proxy_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files / "a.parquet", s3_root, proxy_cfg)
    proxy.faults = ["flip", "truncate", "flip"]  # the last fault flips a byte of the second half
    folders.pull(s3_root, tmp_path / "copy", replace(proxy_cfg, max_attempts=4))
    assert read_files(tmp_path / "copy") == {"a.parquet": FILES["a.parquet"]}
    assert [h.get("Range") for _, h in proxy.object_requests("GET")] == [
        None,
        None,
        "bytes=10000-",
        None,
    ]


@slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("truncate", "the download stopped at byte 17500 of 20000"),
        ("flip", "do not have the object's SHA-256"),
    ],
)
def test_a_download_that_fails_at_every_attempt_is_an_error_and_leaves_no_file(
    fault: str,
    reason: str,
    named_files: Path,
    s3_root: str,
    proxy: FaultyProxy,
    proxy_cfg: StorageConfig,
    tmp_path: Path,
) -> None:
    folders.push(named_files / "a.parquet", s3_root, proxy_cfg)
    proxy.faults = [fault] * 3
    with pytest.raises(StorageError, match=rf"a\.parquet: .*{reason}.*, at the last of 3 attempts"):
        folders.pull(s3_root, tmp_path / "copy", proxy_cfg)
    assert read_files(tmp_path / "copy") == {}
    assert len(proxy.object_requests("GET")) == 3


@slow
def test_objects_without_a_sha256_are_verified_by_md5_or_size(
    swift_port: int,
    s3_root: str,
    storage_cfg: StorageConfig,
    tmp_path: Path,
    proxy: FaultyProxy,
    proxy_cfg: StorageConfig,
) -> None:
    put_object(swift_port, s3_root, "small", data=b"some bytes")
    put_multipart(swift_port, s3_root, "parts", data=b"more bytes")
    proxy.faults = ["flip"]
    pulled = folders.pull(
        s3_root, tmp_path / "copy", replace(proxy_cfg, n_transfers=1), names=["small"]
    )
    assert (pulled.checked, len(proxy.object_requests("GET"))) == ({"small": "md5"}, 2)
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg).checked == {
        "small": "md5",
        "parts": "size",
    }
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg).moved == ()
    (tmp_path / "copy" / "parts").write_bytes(b"lost bytes")  # the same size
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg).moved == ("parts",)
    assert read_files(tmp_path / "copy") == {"small": b"some bytes", "parts": b"more bytes"}


@slow
def test_two_concurrent_pulls_download_each_object_once(
    named_files: Path, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files, s3_root, storage_cfg)
    with ThreadPoolExecutor(2) as pool:
        pulls = [
            pool.submit(folders.pull, s3_root, tmp_path / "copy", storage_cfg) for _ in range(2)
        ]
        moved = sorted(len(p.result().moved) for p in pulls)
    assert moved == [0, len(FILES)]
    assert read_files(tmp_path / "copy") == FILES


@slow
@pytest.mark.parametrize(
    "name", ["../out", "/out", "a//out", "a\\out", "line\nout", ".pull/out", "a/../../out"]
)
def test_an_object_name_that_leaves_the_folder_is_rejected_before_any_download(
    name: str, swift_port: int, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    put_object(swift_port, s3_root, "good", data=b"1")
    put_object(swift_port, s3_root, name, data=b"1")
    assert f"{name!r} is not a name that may be written" in error_message(
        lambda: folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    )
    assert list(tmp_path.rglob("*")) == []
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg, names=["good"]).moved == ("good",)


@given(st.text(st.sampled_from("./\\\0\n~: aé\u202e"), max_size=8))
def test_a_name_is_rejected_or_its_path_is_below_the_folder(name: str) -> None:
    folder = Path("/no/such/folder")
    try:
        path = _local_path(folder, name)
    except StorageError:
        return
    assert folder in Path(os.path.normpath(path)).parents
    assert path.relative_to(folder).as_posix() == name


def test_a_link_that_leaves_the_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "copy" / "sub").symlink_to(tmp_path / "out")
    assert "through a link" in error_message(lambda: _local_path(tmp_path / "copy", "sub/x"))


@slow
def test_a_folder_in_place_of_a_file_is_an_error(
    named_files: Path, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files / "empty", s3_root, storage_cfg)
    (tmp_path / "copy" / "empty" / "x").mkdir(parents=True)
    assert "Is a directory" in error_message(
        lambda: folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    )
