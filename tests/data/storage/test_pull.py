"""A pull goes on where it broke off, proves what it fetched, and writes nothing outside its folder."""

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
from reranker.data.storage.pull import STAGING, _inside
from reranker.errors import StorageError
from tests.helpers.flaky import Flaky
from tests.helpers.objects import NAMES, contents, message, put, put_in_parts

pytestmark = pytest.mark.usefixtures("credentials")
slow = pytest.mark.slow


@slow
def test_what_is_there_is_not_moved_again(
    named_files: Path, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files, s3_root, storage_cfg)
    folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    again = folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    assert (again.moved, set(again.kept), again.n_bytes) == ((), set(NAMES), 0)
    (tmp_path / "copy" / "a.parquet").unlink()
    (tmp_path / "copy" / "empty").write_bytes(b"no longer")
    assert set(folders.pull(s3_root, tmp_path / "copy", storage_cfg).moved) == {
        "a.parquet",
        "empty",
    }
    assert contents(tmp_path / "copy") == NAMES
    (named_files / "a.parquet").write_bytes(b"PAR2" * 5000)  # of the same size
    pushed = folders.push(tmp_path / "source", s3_root, storage_cfg)
    assert (pushed.moved, len(pushed.kept)) == (("a.parquet",), 3)
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg).moved == ("a.parquet",)


@slow
def test_a_pull_by_name_leaves_the_rest(
    named_files: Path, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push([named_files / "a.parquet", named_files / "empty"], s3_root, storage_cfg)
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg, names=["empty"]).moved == (
        "empty",
    )
    assert contents(tmp_path / "copy") == {"empty": b""}
    assert "no object 'b'; found 'a.parquet', 'empty'" in message(
        lambda: folders.pull(s3_root, tmp_path / "copy", storage_cfg, names=["b", "empty"])
    )


@slow
def test_a_download_that_breaks_off_goes_on_from_there(
    named_files: Path, s3_root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files / "a.parquet", s3_root, through)
    between.faults = ["cut"]
    folders.pull(s3_root, tmp_path / "copy", through)
    assert contents(tmp_path / "copy") == {"a.parquet": NAMES["a.parquet"]}
    assert [h.get("Range") for _, h in between.of("GET")] == [None, "bytes=10000-"]


@slow
def test_a_later_pull_goes_on_too(
    named_files: Path, s3_root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files / "a.parquet", s3_root, through)
    between.faults = ["cut"]
    message(lambda: folders.pull(s3_root, tmp_path / "copy", replace(through, max_attempts=1)))
    folders.pull(s3_root, tmp_path / "copy", through)
    assert contents(tmp_path / "copy") == {"a.parquet": NAMES["a.parquet"]}
    assert [h.get("Range") for _, h in between.of("GET")] == [None, "bytes=10000-"]
    assert list((tmp_path / "copy" / STAGING).glob("*.part")) == []


@slow
@pytest.mark.parametrize("half", [b"wrong" * 2000, b"wrong" * 4000, b"too long" * 5000])
def test_a_half_file_is_not_trusted(
    half: bytes,
    named_files: Path,
    s3_root: str,
    between: Flaky,
    through: StorageConfig,
    tmp_path: Path,
) -> None:
    folders.push(named_files / "a.parquet", s3_root, through)
    between.faults = ["cut"]
    message(lambda: folders.pull(s3_root, tmp_path / "copy", replace(through, max_attempts=1)))
    [part] = (tmp_path / "copy" / STAGING).glob("*.part")
    part.write_bytes(half)
    folders.pull(s3_root, tmp_path / "copy", through)
    assert contents(tmp_path / "copy") == {"a.parquet": NAMES["a.parquet"]}


@slow
def test_the_half_of_a_replaced_object_is_thrown_away(
    named_files: Path, s3_root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files / "a.parquet", s3_root, through)
    between.faults = ["cut"]
    message(lambda: folders.pull(s3_root, tmp_path / "copy", replace(through, max_attempts=1)))
    (named_files / "a.parquet").write_bytes(b"PAR2" * 5000)
    folders.push(named_files / "a.parquet", s3_root, through)
    folders.pull(s3_root, tmp_path / "copy", replace(through, max_attempts=1))
    assert contents(tmp_path / "copy") == {"a.parquet": b"PAR2" * 5000}
    assert list((tmp_path / "copy" / STAGING).glob("*.part")) == []


@slow
def test_a_half_file_that_nothing_would_prove_is_thrown_away(
    swift_port: int, s3_root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    put_in_parts(swift_port, s3_root, "parts", b"right" * 2000)
    between.faults = ["cut"]
    message(lambda: folders.pull(s3_root, tmp_path / "copy", replace(through, max_attempts=1)))
    [part] = (tmp_path / "copy" / STAGING).glob("*.part")
    part.write_bytes(b"wrong" * 1000)
    assert folders.pull(s3_root, tmp_path / "copy", through).checked == {"parts": "size"}
    assert contents(tmp_path / "copy") == {"parts": b"right" * 2000}


@slow
def test_flipped_bytes_are_fetched_again_from_the_start(
    named_files: Path, s3_root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files / "a.parquet", s3_root, through)
    between.faults = ["flip", "cut", "flip"]  # the last one flips the second half
    folders.pull(s3_root, tmp_path / "copy", replace(through, max_attempts=4))
    assert contents(tmp_path / "copy") == {"a.parquet": NAMES["a.parquet"]}
    assert [h.get("Range") for _, h in between.of("GET")] == [None, None, "bytes=10000-", None]


@slow
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("cut", "the download broke off at byte 17500 of 20000"),
        ("flip", "do not have the object's SHA-256"),
    ],
)
def test_a_download_that_stays_wrong_is_an_error_and_no_file(
    fault: str,
    why: str,
    named_files: Path,
    s3_root: str,
    between: Flaky,
    through: StorageConfig,
    tmp_path: Path,
) -> None:
    folders.push(named_files / "a.parquet", s3_root, through)
    between.faults = [fault] * 3
    with pytest.raises(StorageError, match=rf"a\.parquet: .*{why}.*, at the last of 3 attempts"):
        folders.pull(s3_root, tmp_path / "copy", through)
    assert contents(tmp_path / "copy") == {}
    assert len(between.of("GET")) == 3


@slow
def test_objects_of_others_are_checked_by_what_the_store_knows(
    swift_port: int,
    s3_root: str,
    storage_cfg: StorageConfig,
    tmp_path: Path,
    between: Flaky,
    through: StorageConfig,
) -> None:
    put(swift_port, s3_root, "small", b"some bytes")
    put_in_parts(swift_port, s3_root, "parts", b"more bytes")
    between.faults = ["flip"]
    pulled = folders.pull(
        s3_root, tmp_path / "copy", replace(through, n_transfers=1), names=["small"]
    )
    assert (pulled.checked, len(between.of("GET"))) == ({"small": "md5"}, 2)
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg).checked == {
        "small": "md5",
        "parts": "size",
    }
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg).moved == ()
    (tmp_path / "copy" / "parts").write_bytes(b"lost bytes")  # of the same size
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg).moved == ("parts",)
    assert contents(tmp_path / "copy") == {"small": b"some bytes", "parts": b"more bytes"}


@slow
def test_two_pulls_into_one_folder_fetch_once(
    named_files: Path, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files, s3_root, storage_cfg)
    with ThreadPoolExecutor(2) as pool:
        pulls = [
            pool.submit(folders.pull, s3_root, tmp_path / "copy", storage_cfg) for _ in range(2)
        ]
        moved = sorted(len(p.result().moved) for p in pulls)
    assert moved == [0, len(NAMES)]
    assert contents(tmp_path / "copy") == NAMES


@slow
@pytest.mark.parametrize(
    "name", ["../out", "/out", "a//out", "a\\out", "line\nout", ".pull/out", "a/../../out"]
)
def test_an_object_that_would_leave_the_folder_is_refused_before_any_work(
    name: str, swift_port: int, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    put(swift_port, s3_root, "good", b"1")
    put(swift_port, s3_root, name, b"1")
    assert f"{name!r} is not a name that may be written" in message(
        lambda: folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    )
    assert list(tmp_path.rglob("*")) == []
    assert folders.pull(s3_root, tmp_path / "copy", storage_cfg, names=["good"]).moved == ("good",)


@given(st.text(st.sampled_from("./\\\0\n~: aé\u202e"), max_size=8))
def test_a_name_is_refused_or_stays_below_the_folder(name: str) -> None:
    folder = Path("/no/such/folder")
    try:
        path = _inside(folder, name)
    except StorageError:
        return
    assert folder in Path(os.path.normpath(path)).parents
    assert path.relative_to(folder).as_posix() == name


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "copy" / "sub").symlink_to(tmp_path / "out")
    assert "through a link" in message(lambda: _inside(tmp_path / "copy", "sub/x"))


@slow
def test_a_folder_in_the_place_of_a_file_is_named(
    named_files: Path, s3_root: str, storage_cfg: StorageConfig, tmp_path: Path
) -> None:
    folders.push(named_files / "empty", s3_root, storage_cfg)
    (tmp_path / "copy" / "empty" / "x").mkdir(parents=True)
    assert "Is a directory" in message(
        lambda: folders.pull(s3_root, tmp_path / "copy", storage_cfg)
    )
