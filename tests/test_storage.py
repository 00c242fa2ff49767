"""Object storage against a real S3 server, straight and through a proxy that cuts, flips and refuses."""

from __future__ import annotations

import hashlib
import json
import os
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from reranker import cli
from reranker.cache import Cache, digest, digest_file
from reranker.config import DataConfig, EngineConfig, SamplingConfig, StorageConfig
from reranker.data import bookdb, build_contexts, load, s3, storage
from reranker.data.pull import STAGING, _inside
from reranker.errors import ConfigError, StorageError
from reranker.sampling import build_pairs
from tests import flaky, swift
from tests.flaky import Flaky

NAMES = {
    "a.parquet": b"PAR1" * 5000,
    "écrits/日本 語+%2F.txt": "naïve".encode(),
    "empty": b"",
    "z/manifest.json": b"{}",
}
BUCKET = "books"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Swift that lives as long as this module's tests, with one bucket."""
    home = tmp_path_factory.mktemp("swift")
    if why := swift.refusal(home):
        pytest.skip(why)
    with swift.serve(home) as server:
        plain_client(server.port).create_bucket(Bucket=BUCKET)
        yield server.port


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", swift.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", swift.SECRET_KEY)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def root(request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{digest(request.node.nodeid)[:12]}"


@pytest.fixture
def cfg(port: int) -> StorageConfig:
    return StorageConfig(endpoint_url=f"http://127.0.0.1:{port}", region="auto", n_transfers=4, max_attempts=3)


@pytest.fixture
def between(port: int) -> Iterator[Flaky]:
    with flaky.proxy(port) as between:
        yield between


@pytest.fixture
def through(cfg: StorageConfig, between: Flaky) -> StorageConfig:
    """The settings for requests that go through the proxy."""
    return replace(cfg, endpoint_url=between.endpoint_url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "source", NAMES)


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of the files that a reader of the folder sees."""
    files = (p for p in folder.rglob("*") if p.is_file() and STAGING not in p.parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def plain_client(port: int) -> Any:
    """A client of the tests' own, for objects that `push` would not write."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="auto",
        aws_access_key_id=swift.ACCESS_KEY,
        aws_secret_access_key=swift.SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )


def put(port: int, root: str, name: str, data: bytes) -> None:
    """Write an object without a SHA-256 in its metadata."""
    key = f"{root.removeprefix(f's3://{BUCKET}/')}/{name}"
    plain_client(port).put_object(Bucket=BUCKET, Key=key, Body=data)


def put_in_parts(port: int, root: str, name: str, data: bytes) -> None:
    """Write an object of which the store knows the size alone."""
    client, where = plain_client(port), {"Bucket": BUCKET, "Key": f"{root.removeprefix(f's3://{BUCKET}/')}/{name}"}
    upload = {**where, "UploadId": client.create_multipart_upload(**where)["UploadId"]}
    etag = client.upload_part(**upload, PartNumber=1, Body=data)["ETag"]
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"ETag": etag, "PartNumber": 1}]})


def message(call: Callable[[], object], kind: type[Exception] = StorageError) -> str:
    """The message of the error that a call raises, after a look for the secret in all that a traceback shows."""
    with pytest.raises(kind) as caught:
        call()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert swift.SECRET_KEY not in shown
    return str(caught.value)


slow = pytest.mark.slow


@slow
def test_what_was_pushed_comes_back_to_the_byte(folder: Path, root: str, cfg: StorageConfig, tmp_path: Path) -> None:
    pushed = storage.push(folder, root, cfg)
    assert (pushed.moved, pushed.kept, pushed.n_bytes) == (tuple(sorted(NAMES)), (), sum(map(len, NAMES.values())))
    listed = storage.list_objects(root, cfg)
    assert {o.name: (o.size, o.sha256) for o in listed} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in NAMES.items()
    }
    pulled = storage.pull(root, tmp_path / "copy", cfg)
    assert contents(tmp_path / "copy") == NAMES
    assert (set(pulled.moved), pulled.kept) == (set(NAMES), ())
    assert set(pulled.checked.values()) == {"sha256"}


@slow
def test_what_is_there_is_not_moved_again(folder: Path, root: str, cfg: StorageConfig, tmp_path: Path) -> None:
    storage.push(folder, root, cfg)
    storage.pull(root, tmp_path / "copy", cfg)
    again = storage.pull(root, tmp_path / "copy", cfg)
    assert (again.moved, set(again.kept), again.n_bytes) == ((), set(NAMES), 0)
    (tmp_path / "copy" / "a.parquet").unlink()
    (tmp_path / "copy" / "empty").write_bytes(b"no longer")
    assert set(storage.pull(root, tmp_path / "copy", cfg).moved) == {"a.parquet", "empty"}
    assert contents(tmp_path / "copy") == NAMES
    (folder / "a.parquet").write_bytes(b"PAR2" * 5000)  # of the same size
    pushed = storage.push(tmp_path / "source", root, cfg)
    assert (pushed.moved, len(pushed.kept)) == (("a.parquet",), 3)
    assert storage.pull(root, tmp_path / "copy", cfg).moved == ("a.parquet",)


@slow
def test_a_pull_by_name_leaves_the_rest(folder: Path, root: str, cfg: StorageConfig, tmp_path: Path) -> None:
    storage.push([folder / "a.parquet", folder / "empty"], root, cfg)
    assert storage.pull(root, tmp_path / "copy", cfg, names=["empty"]).moved == ("empty",)
    assert contents(tmp_path / "copy") == {"empty": b""}
    assert "no object 'b'; found 'a.parquet', 'empty'" in message(
        lambda: storage.pull(root, tmp_path / "copy", cfg, names=["b", "empty"])
    )


@slow
def test_a_manifest_goes_last(tmp_path: Path, root: str, between: Flaky, through: StorageConfig) -> None:
    folder = written(tmp_path / "source", {f"{n}/manifest.json": b"{}" for n in "ab"} | {f"b/{i}": b"1" for i in "xyz"})
    storage.push(folder, root, through)
    order = [path.rsplit("/", 1)[-1] for path, _ in between.of("PUT")]
    assert (sorted(order[:3]), order[3:]) == (["x", "y", "z"], ["manifest.json"] * 2)


@slow
def test_a_download_that_breaks_off_goes_on_from_there(
    folder: Path, root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    storage.push(folder / "a.parquet", root, through)
    between.faults = ["cut"]
    storage.pull(root, tmp_path / "copy", through)
    assert contents(tmp_path / "copy") == {"a.parquet": NAMES["a.parquet"]}
    assert [h.get("Range") for _, h in between.of("GET")] == [None, "bytes=10000-"]


@slow
def test_a_later_pull_goes_on_too(
    folder: Path, root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    storage.push(folder / "a.parquet", root, through)
    between.faults = ["cut"]
    message(lambda: storage.pull(root, tmp_path / "copy", replace(through, max_attempts=1)))
    storage.pull(root, tmp_path / "copy", through)
    assert contents(tmp_path / "copy") == {"a.parquet": NAMES["a.parquet"]}
    assert [h.get("Range") for _, h in between.of("GET")] == [None, "bytes=10000-"]
    assert list((tmp_path / "copy" / STAGING).glob("*.part")) == []


@slow
@pytest.mark.parametrize("half", [b"wrong" * 2000, b"wrong" * 4000, b"too long" * 5000])
def test_a_half_file_is_not_trusted(
    half: bytes, folder: Path, root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    storage.push(folder / "a.parquet", root, through)
    between.faults = ["cut"]
    message(lambda: storage.pull(root, tmp_path / "copy", replace(through, max_attempts=1)))
    [part] = (tmp_path / "copy" / STAGING).glob("*.part")
    part.write_bytes(half)
    storage.pull(root, tmp_path / "copy", through)
    assert contents(tmp_path / "copy") == {"a.parquet": NAMES["a.parquet"]}


@slow
def test_the_half_of_a_replaced_object_is_thrown_away(
    folder: Path, root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    storage.push(folder / "a.parquet", root, through)
    between.faults = ["cut"]
    message(lambda: storage.pull(root, tmp_path / "copy", replace(through, max_attempts=1)))
    (folder / "a.parquet").write_bytes(b"PAR2" * 5000)
    storage.push(folder / "a.parquet", root, through)
    storage.pull(root, tmp_path / "copy", replace(through, max_attempts=1))
    assert contents(tmp_path / "copy") == {"a.parquet": b"PAR2" * 5000}
    assert list((tmp_path / "copy" / STAGING).glob("*.part")) == []


@slow
def test_a_half_file_that_nothing_would_prove_is_thrown_away(
    port: int, root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    put_in_parts(port, root, "parts", b"right" * 2000)
    between.faults = ["cut"]
    message(lambda: storage.pull(root, tmp_path / "copy", replace(through, max_attempts=1)))
    [part] = (tmp_path / "copy" / STAGING).glob("*.part")
    part.write_bytes(b"wrong" * 1000)
    assert storage.pull(root, tmp_path / "copy", through).checked == {"parts": "size"}
    assert contents(tmp_path / "copy") == {"parts": b"right" * 2000}


@slow
def test_flipped_bytes_are_fetched_again_from_the_start(
    folder: Path, root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    storage.push(folder / "a.parquet", root, through)
    between.faults = ["flip", "cut", "flip"]  # the last one flips the second half
    storage.pull(root, tmp_path / "copy", replace(through, max_attempts=4))
    assert contents(tmp_path / "copy") == {"a.parquet": NAMES["a.parquet"]}
    assert [h.get("Range") for _, h in between.of("GET")] == [None, None, "bytes=10000-", None]


@slow
@pytest.mark.parametrize(
    ("fault", "why"),
    [("cut", "the download broke off at byte 17500 of 20000"), ("flip", "do not have the object's SHA-256")],
)
def test_a_download_that_stays_wrong_is_an_error_and_no_file(
    fault: str, why: str, folder: Path, root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    storage.push(folder / "a.parquet", root, through)
    between.faults = [fault] * 3
    with pytest.raises(StorageError, match=rf"a\.parquet: .*{why}.*, at the last of 3 attempts"):
        storage.pull(root, tmp_path / "copy", through)
    assert contents(tmp_path / "copy") == {}
    assert len(between.of("GET")) == 3


@slow
@pytest.mark.parametrize("status", [400, 401, 501])
def test_a_store_that_refuses_new_checksum_headers(
    status: int, folder: Path, root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    between.refuse_checksums = status
    storage.push(folder, root, through)
    storage.pull(root, tmp_path / "copy", through)
    assert contents(tmp_path / "copy") == NAMES
    new = replace(through, checksum="when_supported")
    hint = "may refuse new checksum headers; set data.storage.checksum=when_required"
    assert hint in message(lambda: storage.push(written(tmp_path / "other", {"b": b"1"}), root, new))
    assert hint in message(lambda: storage.pull(root, tmp_path / "third", new))


@slow
def test_new_checksum_headers_work_where_they_are_known(
    folder: Path, root: str, between: Flaky, through: StorageConfig, tmp_path: Path
) -> None:
    new = replace(through, checksum="when_supported")
    storage.push(folder, root, new)
    storage.pull(root, tmp_path / "copy", new)
    assert contents(tmp_path / "copy") == NAMES
    assert all(any(name.startswith("x-amz-checksum-") for name in h) for _, h in between.of("PUT"))


@slow
def test_a_large_file_goes_up_in_parts(
    root: str, cfg: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 2**20)  # the least that S3 takes
    data = bytes(range(256)) * (11 * 2**20 // 256)
    storage.push(written(tmp_path / "source", {"large": data}) / "large", root, cfg)
    [large] = storage.list_objects(root, cfg)
    assert (large.etag[-3:], large.md5, large.sha256) == ('-3"', None, hashlib.sha256(data).hexdigest())
    pulled = storage.pull(root, tmp_path / "copy", cfg)
    assert pulled.checked == {"large": "sha256"}
    assert digest_file(tmp_path / "copy" / "large") == large.sha256


@slow
def test_objects_of_others_are_checked_by_what_the_store_knows(
    port: int, root: str, cfg: StorageConfig, tmp_path: Path, between: Flaky, through: StorageConfig
) -> None:
    put(port, root, "small", b"some bytes")
    put_in_parts(port, root, "parts", b"more bytes")
    between.faults = ["flip"]
    pulled = storage.pull(root, tmp_path / "copy", replace(through, n_transfers=1), names=["small"])
    assert (pulled.checked, len(between.of("GET"))) == ({"small": "md5"}, 2)
    assert storage.pull(root, tmp_path / "copy", cfg).checked == {"small": "md5", "parts": "size"}
    assert storage.pull(root, tmp_path / "copy", cfg).moved == ()
    (tmp_path / "copy" / "parts").write_bytes(b"lost bytes")  # of the same size
    assert storage.pull(root, tmp_path / "copy", cfg).moved == ("parts",)
    assert contents(tmp_path / "copy") == {"small": b"some bytes", "parts": b"more bytes"}


@slow
def test_two_pulls_into_one_folder_fetch_once(folder: Path, root: str, cfg: StorageConfig, tmp_path: Path) -> None:
    storage.push(folder, root, cfg)
    with ThreadPoolExecutor(2) as pool:
        pulls = [pool.submit(storage.pull, root, tmp_path / "copy", cfg) for _ in range(2)]
        moved = sorted(len(p.result().moved) for p in pulls)
    assert moved == [0, len(NAMES)]
    assert contents(tmp_path / "copy") == NAMES


@slow
def test_a_failure_says_what_to_do(
    root: str, cfg: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such bucket" in message(lambda: storage.pull("s3://missing/x", tmp_path, cfg))
    assert "no such bucket" in message(lambda: storage.push(written(tmp_path / "s", NAMES), "s3://missing/x", cfg))
    assert "no objects; found nothing" in message(lambda: storage.pull(root, tmp_path / "copy", cfg))
    with s3.Root(root, cfg) as remote:
        assert "no such object" in message(lambda: remote.head("missing"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{swift.SECRET_KEY}x")
    assert "does not know this pair of key id and secret" in message(lambda: storage.list_objects(root, cfg))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials (PartialCredentialsError)" in message(lambda: storage.list_objects(root, cfg))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no credentials (NoCredentialsError)" in message(lambda: storage.list_objects(root, cfg))
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
    status: int, code: str, said: str, root: str, between: Flaky, through: StorageConfig
) -> None:
    between.answers = [(status, code)] * 2
    text = message(lambda: storage.list_objects(root, replace(through, max_attempts=2)))
    assert said in text
    assert text.isprintable()


def test_a_dead_endpoint_is_named() -> None:
    [port] = swift._free_ports(1)
    cfg = StorageConfig(endpoint_url=f"http://127.0.0.1:{port}", region="auto", max_attempts=1)
    text = message(lambda: storage.list_objects("s3://books", cfg))
    assert f"http://127.0.0.1:{port} was not reached in 1 attempts (EndpointConnectionError)" in text


@slow
@pytest.mark.parametrize("name", ["../out", "/out", "a//out", "a\\out", "line\nout", ".pull/out", "a/../../out"])
def test_an_object_that_would_leave_the_folder_is_refused_before_any_work(
    name: str, port: int, root: str, cfg: StorageConfig, tmp_path: Path
) -> None:
    put(port, root, "good", b"1")
    put(port, root, name, b"1")
    assert f"{name!r} is not a name that may be written" in message(lambda: storage.pull(root, tmp_path / "copy", cfg))
    assert list(tmp_path.rglob("*")) == []
    assert storage.pull(root, tmp_path / "copy", cfg, names=["good"]).moved == ("good",)


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
def test_a_folder_in_the_place_of_a_file_is_named(folder: Path, root: str, cfg: StorageConfig, tmp_path: Path) -> None:
    storage.push(folder / "empty", root, cfg)
    (tmp_path / "copy" / "empty" / "x").mkdir(parents=True)
    assert "Is a directory" in message(lambda: storage.pull(root, tmp_path / "copy", cfg))


@slow
def test_a_file_that_changes_meanwhile_is_not_passed_over(
    folder: Path, root: str, between: Flaky, through: StorageConfig
) -> None:
    between.on_upload = lambda: (folder / "a.parquet").write_bytes(b"new")
    assert "a.parquet changed while it was pushed" in message(lambda: storage.push(folder / "a.parquet", root, through))


def test_nothing_to_push_and_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    cfg = StorageConfig()
    (tmp_path / "a").mkdir()
    assert "no such folder" in message(lambda: storage.push(tmp_path / "missing", "s3://books", cfg))
    assert "no files to push" in message(lambda: storage.push(tmp_path / "a", "s3://books", cfg))
    written(tmp_path, {"a/x": b"1", "b/x": b"2"})
    assert "have 1 names" in message(lambda: storage.push([tmp_path / "a/x", tmp_path / "b/x"], "s3://books", cfg))
    assert "no such file" in message(lambda: storage.push([tmp_path / "c"], "s3://books", cfg))


@pytest.mark.parametrize(
    ("root", "endpoint", "named"),
    [
        (f"s3://key:{swift.SECRET_KEY}@books/x", None, "data.root=s3://…"),
        ("gs://books/x", None, "data.root=gs://… is neither a folder nor s3://BUCKET/PREFIX"),
        ("s3:///x", None, "data.root=s3://…"),
        ("s3://books/x", f"https://key:{swift.SECRET_KEY}@host", "data.storage.endpoint_url is not of the form"),
        ("s3://books/x", f"https://host/?token={swift.SECRET_KEY}", "data.storage.endpoint_url is not of the form"),
        ("s3://books/x", "host:9000", "data.storage.endpoint_url is not of the form"),
        ("s3://books/x", "https://host:port", "data.storage.endpoint_url is not of the form"),
    ],
)
def test_a_root_or_endpoint_with_a_secret_is_refused_and_not_repeated(root: str, endpoint: str, named: str) -> None:
    cfg = StorageConfig(endpoint_url=endpoint)
    for call in (
        lambda: storage.list_objects(root, cfg),
        lambda: storage.local_root(DataConfig(root=root, storage=cfg), Path("x")),
    ):
        assert named in message(call, ConfigError)


@slow
def test_the_secret_is_in_no_output(
    folder: Path,
    root: str,
    cfg: StorageConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    done = [
        storage.push(folder, root, cfg),
        storage.pull(root, tmp_path / "copy", cfg),
        storage.list_objects(root, cfg),
    ]
    with s3.Root(root, cfg) as remote:
        shown = repr((done, cfg, remote, remote.client, vars(remote)))
    out, err = capfd.readouterr()
    assert swift.SECRET_KEY not in shown + out + err + caplog.text
    kept = [p for p in (tmp_path / "copy").rglob("*") if p.is_file()]
    assert len(kept) > len(NAMES)  # with the lock
    assert not any(swift.SECRET_KEY.encode() in p.read_bytes() for p in kept)


@slow
def test_tables_from_the_store_equal_those_of_the_folder(
    data_cfg: DataConfig, root: str, cfg: StorageConfig, tmp_path: Path
) -> None:
    storage.push(Path(str(data_cfg.root)), root, cfg)
    remote = replace(data_cfg, root=root, storage=cfg)
    copy = storage.local_root(remote, tmp_path / "cache", bookdb.SCHEMA)
    name = digest({"endpoint": cfg.endpoint_url, "root": f"{root}/"})[:16]
    assert copy == tmp_path / "cache" / "remote" / name
    assert contents(copy) == contents(Path(str(data_cfg.root)))
    here, there = (
        load(replace(data_cfg, root=str(r)), Cache(tmp_path / c)) for r, c in ((data_cfg.root, "1"), (copy, "2"))
    )
    assert here.digest == there.digest


@slow
def test_a_run_from_the_store_has_the_pairs_of_a_run_from_the_folder(
    data_cfg: DataConfig, root: str, cfg: StorageConfig, tmp_path: Path
) -> None:
    storage.push(Path(str(data_cfg.root)), root, cfg)
    built = []
    for source in (data_cfg, replace(data_cfg, root=root, storage=cfg)):
        cache = Cache(tmp_path / str(len(built)))
        tables = load(source, cache)
        contexts = build_contexts(tables, source)
        built.append(build_pairs(tables, contexts, SamplingConfig(), EngineConfig("synchronous", 1), cache))
    assert built[0].digest == built[1].digest
    assert built[0].path.read_bytes() == built[1].path.read_bytes()


@slow
def test_the_local_copy_follows_the_store(port: int, root: str, cfg: StorageConfig, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "b.txt", "sub/c.csv"):
        put(port, root, name, name.encode())
    data = DataConfig(root=f"{root}/", storage=cfg)
    assert "no object matches *.gz" in message(lambda: storage.local_root(data, tmp_path, ["*.gz"]))
    copy = storage.local_root(data, tmp_path, ["*.csv"])
    assert copy and contents(copy) == {"a.csv": b"a.csv", "b.csv": b"b.csv"}
    put(port, root, "a.csv", b"new")
    plain_client(port).delete_object(Bucket=BUCKET, Key=f"{root.removeprefix(f's3://{BUCKET}/')}/b.csv")
    assert storage.local_root(data, tmp_path, ["*.csv"]) == copy
    assert contents(copy) == {"a.csv": b"new"}


def test_a_local_folder_is_its_own_root_and_can_be_listed(tmp_path: Path) -> None:
    folder = written(tmp_path / "source", NAMES)
    assert storage.local_root(DataConfig(root=str(folder)), tmp_path) == folder
    assert storage.local_root(DataConfig(), tmp_path) is None
    listed = storage.list_objects(str(folder), StorageConfig())
    assert [(o.name, o.size, o.sha256) for o in listed] == [(n, len(NAMES[n]), None) for n in sorted(NAMES)]
    assert "no such folder" in message(lambda: storage.list_objects(str(tmp_path / "no"), StorageConfig()))


@slow
def test_the_command_line_pushes_lists_and_pulls(
    folder: Path, root: str, cfg: StorageConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--endpoint-url", str(cfg.endpoint_url), "--region", "auto"]
    assert cli.main(["data", "push", str(folder), root, *flags]) == 0
    assert cli.main(["data", "pull", root, str(tmp_path / "copy"), *flags]) == 0
    n_bytes = sum(map(len, NAMES.values()))
    out = capsys.readouterr().out
    assert f"{root}/: 4 files sent ({n_bytes / 1000:.1f} kB), 0 were there." in out
    assert f"copy: 4 files fetched ({n_bytes / 1000:.1f} kB), 0 were there." in out
    assert cli.main(["data", "list", root, "--format", "json", *flags]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: (row["bytes"], row["sha256"]) for row in rows} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in NAMES.items()
    }
    assert cli.main(["data", "list", "s3://missing", *flags]) == 2
    assert "reranker: s3://missing/: there is no such bucket" in capsys.readouterr().err
