"""Files and objects for the storage tests, and error messages that are checked for secrets."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reranker.data.storage.pull import STAGING
from reranker.errors import StorageError
from tests.helpers import swift

FILES = {
    "a.parquet": b"PAR1" * 5000,
    "écrits/日本 語+%2F.txt": "naïve".encode(),
    "empty": b"",
    "z/manifest.json": b"{}",
}
BUCKET = "books"


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write name -> bytes into a folder and return the folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    """Return name -> bytes of the files in a folder, without the staging folder of a pull."""
    files = (p for p in folder.rglob("*") if p.is_file() and STAGING not in p.parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def s3_client(port: int) -> Any:
    """Return a plain boto3 client, for objects that `push` would not write."""
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


def put_object(port: int, root: str, name: str, *, data: bytes) -> None:
    """Write an object without a SHA-256 in its metadata."""
    s3_client(port).put_object(Bucket=BUCKET, Key=_key(root, name), Body=data)


def put_multipart(port: int, root: str, name: str, *, data: bytes) -> None:
    """Write an object in parts, so that the store knows its size but no hash."""
    client, target = s3_client(port), {"Bucket": BUCKET, "Key": _key(root, name)}
    upload = {**target, "UploadId": client.create_multipart_upload(**target)["UploadId"]}
    etag = client.upload_part(**upload, PartNumber=1, Body=data)["ETag"]
    parts = {"Parts": [{"ETag": etag, "PartNumber": 1}]}
    client.complete_multipart_upload(**upload, MultipartUpload=parts)


def _key(root: str, name: str) -> str:
    return f"{root.removeprefix(f's3://{BUCKET}/')}/{name}"


def error_message(call: Callable[[], object], kind: type[Exception] = StorageError) -> str:
    """Return the message of the error that a call raises.

    The traceback and the error must not contain the secret key.
    """
    with pytest.raises(kind) as caught:
        call()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert swift.SECRET_KEY not in shown
    return str(caught.value)
