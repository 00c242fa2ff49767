"""Objects in a bucket of the tests' own S3 server, and what an error may not show."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reranker.data.storage.pull import STAGING
from reranker.errors import StorageError
from tests.helpers import swift

NAMES = {
    "a.parquet": b"PAR1" * 5000,
    "écrits/日本 語+%2F.txt": "naïve".encode(),
    "empty": b"",
    "z/manifest.json": b"{}",
}
BUCKET = "books"


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
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="auto",
        aws_access_key_id=swift.ACCESS_KEY,
        aws_secret_access_key=swift.SECRET_KEY,
        config=Config(
            s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
        ),
    )


def put(port: int, root: str, name: str, data: bytes) -> None:
    """Write an object without a SHA-256 in its metadata."""
    key = f"{root.removeprefix(f's3://{BUCKET}/')}/{name}"
    plain_client(port).put_object(Bucket=BUCKET, Key=key, Body=data)


def put_in_parts(port: int, root: str, name: str, data: bytes) -> None:
    """Write an object of which the store knows the size alone."""
    client, where = (
        plain_client(port),
        {"Bucket": BUCKET, "Key": f"{root.removeprefix(f's3://{BUCKET}/')}/{name}"},
    )
    upload = {**where, "UploadId": client.create_multipart_upload(**where)["UploadId"]}
    etag = client.upload_part(**upload, PartNumber=1, Body=data)["ETag"]
    client.complete_multipart_upload(
        **upload, MultipartUpload={"Parts": [{"ETag": etag, "PartNumber": 1}]}
    )


def message(call: Callable[[], object], kind: type[Exception] = StorageError) -> str:
    """The message of the error that a call raises, after a look for the secret in all that a traceback shows."""
    with pytest.raises(kind) as caught:
        call()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert swift.SECRET_KEY not in shown
    return str(caught.value)
