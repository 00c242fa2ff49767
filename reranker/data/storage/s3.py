"""List, read and write objects below one `s3://bucket/prefix`, with readable errors."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from reranker.config import StorageConfig, check_storage
from reranker.errors import StorageError

# Larger files are uploaded in parts of this size. S3 allows 10,000 parts: 640 GB.
PART_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
# With boto3's default of 60 s, five attempts at a dead endpoint take five minutes.
CONNECT_TIMEOUT_S = 10

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_SKEWED = {"RequestTimeTooSkewed", "RequestExpired"}
_THROTTLED = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestThrottled",
    "TooManyRequests",
    "429",
    "503",
}
_REGION = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
    "301",
}
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or use a profile of the "
    "AWS chain"
)


@dataclass(frozen=True)
class RemoteObject:
    """An object below a root.

    Attributes:
        name: The key without the root's prefix; folders are separated by `/`.
        size: Bytes.
        modified: When it was written.
        sha256: SHA-256 of the bytes from the object's metadata, 64 hex digits; None if absent.
        etag: The ETag of this version, with its quotes.
        md5: MD5 of the bytes if the ETag is one: the object was uploaded in one part and is not
            encrypted with a customer key.
    """

    name: str
    size: int
    modified: datetime
    sha256: str | None = None
    etag: str = ""
    md5: str | None = None


class DownloadInterrupted(Exception):
    """A download ended before its last byte; the bytes received are kept."""


class Root:
    """One `s3://bucket/prefix`, opened with the credentials of the environment or the AWS chain.

    Use it as a context manager. Every method raises StorageError if the store cannot be reached or
    refuses the request.

    Raises:
        ConfigError: The URL is not of this form, or the endpoint is malformed or holds credentials.
    """

    def __init__(self, url: str, cfg: StorageConfig) -> None:
        check_storage(url, cfg)
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"s3://{self.bucket}/{self.prefix}"
        self.cfg = cfg
        with self._translate_errors(self.url):
            self.client = _client(cfg)

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def entries(self) -> list[RemoteObject]:
        """Return all objects below the root, sorted by name; a listing has no SHA-256."""
        with self._translate_errors(self.url):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix
            )
            found = [o for page in pages for o in page.get("Contents", [])]
        objects = [
            RemoteObject(
                o["Key"].removeprefix(self.prefix), o["Size"], o["LastModified"], etag=o["ETag"]
            )
            for o in found
            if not _is_empty_folder(o)
        ]
        return sorted(objects, key=lambda o: o.name)

    def head(self, name: str) -> RemoteObject:
        """Return one object with the SHA-256 from its metadata."""
        with self._translate_errors(self.url + name):
            h = self.client.head_object(Bucket=self.bucket, Key=self.prefix + name)
        stored = h["Metadata"].get("sha256", "").lower()
        return RemoteObject(
            name,
            h["ContentLength"],
            h["LastModified"],
            sha256=stored if re.fullmatch("[0-9a-f]{64}", stored) else None,
            etag=h["ETag"],
            md5=_md5(h),
        )

    def read(self, wanted: RemoteObject, file: BinaryIO, tick: Callable[[int], None]) -> None:
        """Append the object's bytes to a file, starting at the byte where the file ends.

        If the store sends more bytes than expected, at most one extra chunk is written.

        Raises:
            DownloadInterrupted: The connection ended before the last byte.
            StorageError: The object does not exist, was replaced, or may not be read.
        """
        start = file.seek(0, 2)
        part = {"Range": f"bytes={start}-"} if start else {}
        with self._translate_errors(self.url + wanted.name):
            response = self.client.get_object(
                Bucket=self.bucket, Key=self.prefix + wanted.name, IfMatch=wanted.etag, **part
            )
        if start and not response.get("ContentRange", "").startswith(f"bytes {start}-"):
            file.truncate(0)  # the store ignored the range and sends all bytes
            tick(-start)
        for chunk in _chunks(response["Body"]):
            tick(file.write(chunk))
            if file.tell() > wanted.size:  # do not fill the disk with unexpected bytes
                return

    def write(
        self, path: Path, name: str, sha256: str, *, n_threads: int, tick: Callable[[int], None]
    ) -> None:
        """Upload a file with its SHA-256 as metadata, in parts if it is large; atomic."""
        from boto3.s3.transfer import TransferConfig

        parts = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=n_threads,
        )
        with self._translate_errors(self.url + name):
            self.client.upload_file(
                str(path),
                self.bucket,
                self.prefix + name,
                ExtraArgs={"Metadata": {"sha256": sha256}},
                Config=parts,
                Callback=tick,
            )

    @contextmanager
    def _translate_errors(self, where: str) -> Iterator[None]:
        """Convert errors of boto3 into a StorageError that starts with `where`."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            raise StorageError(f"{where}: {_explain_response(error, self.cfg)}") from error
        except Boto3Error as error:
            # Raised by uploads. Its message quotes the response, so only its context is used.
            cause = error.__context__
            explain = _explain_response if isinstance(cause, ClientError) else _explain_failure
            raise StorageError(f"{where}: {explain(cause, self.cfg)}") from cause
        except BotoCoreError as error:
            raise StorageError(f"{where}: {_explain_failure(error, self.cfg)}") from error


def _client(cfg: StorageConfig) -> Any:
    import boto3
    import botocore.session
    from botocore.config import Config

    settings = Config(
        # Bucket names in host names need a wildcard certificate, which stores other than AWS often
        # lack.
        s3={"addressing_style": "auto" if cfg.endpoint_url is None else "path"},
        retries={"total_max_attempts": cfg.max_attempts, "mode": "standard"},
        request_checksum_calculation=cfg.checksum,
        response_checksum_validation=cfg.checksum,
        max_pool_connections=2 * cfg.n_transfers,
        connect_timeout=CONNECT_TIMEOUT_S,
    )
    # A new session reads the credentials again. boto3's default session is not thread-safe.
    core = botocore.session.Session()
    core.register_component("data_loader", _service_models())
    session = boto3.session.Session(botocore_session=core)
    return session.client(
        "s3", endpoint_url=cfg.endpoint_url, region_name=cfg.region, config=settings
    )


@functools.cache
def _service_models() -> Any:
    """Return botocore's service definitions, loaded once.

    Each further client then takes 0.03 s instead of 0.2 s.
    """
    from botocore.loaders import create_loader

    return create_loader()


def _is_empty_folder(entry: dict[str, Any]) -> bool:
    """Return whether an entry is the marker that consoles write for an empty folder."""
    return bool(entry["Key"].endswith("/") and entry["Size"] == 0)


def _md5(head: dict[str, Any]) -> str | None:
    """Return the MD5 of an object, or None if its ETag is not the MD5."""
    if head.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in head:
        return None
    match = re.fullmatch('"([0-9a-f]{32})"', head["ETag"])
    return match.group(1) if match else None


def _chunks(body: Any) -> Iterator[bytes]:
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    with closing(body):
        try:
            yield from body.iter_chunks(CHUNK_BYTES)
        except (BotoCoreError, HTTPError) as error:
            raise DownloadInterrupted(type(error).__name__) from error


def _explain_response(error: Any, cfg: StorageConfig) -> str:
    """Return why the store refused the request, and what to do.

    The store's own message is left out because it may quote the request.
    """
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = re.sub(r"\W", "", str(error.response.get("Error", {}).get("Code", "")))[:60]
    response = f"{status} {code}" if code not in ("", str(status)) else str(status)
    return f"{_reason(code, status, cfg)} ({error.operation_name} returned {response})"


def _reason(code: str, status: int, cfg: StorageConfig) -> str:
    if code in _EXPIRED:
        return "the session token has expired; get new credentials."
    if code in _SKEWED:
        return "this machine's clock differs too much from the store's; set it and try again."
    if code in _THROTTLED or status in (429, 503):
        attempts = f"still throttled after {cfg.max_attempts} attempts"
        return f"{attempts}; wait, or lower data.storage.n_transfers."
    if code in _REGION or status == 301:
        return f"the bucket is not in region {cfg.region}; set data.storage.region to the bucket's."
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return f"the store does not accept this key id and secret; {_CREDENTIALS}."
    if code == "NoSuchBucket":
        return "there is no such bucket; check its name, data.storage.endpoint_url and the account."
    if status == 412:
        return "the object was replaced during the download; pull again."
    if status == 403:
        return "these credentials do not allow this; use others, or contact the bucket's owner."
    if status == 404:
        return "there is no such object or bucket; `reranker data list` shows the objects."
    if status in (400, 401, 501) and cfg.checksum == "when_supported":
        remedy = "set data.storage.checksum=when_required (--checksum)."
        return f"the store may not support the newer checksum headers; {remedy}"
    if status == 401:
        return f"the store does not accept these credentials; {_CREDENTIALS}."
    if status >= 500:
        return f"the store failed at each of {cfg.max_attempts} attempts; try again later."
    settings = "the root, data.storage.endpoint_url and data.storage.region"
    return f"the store refuses the request; check {settings}."


def _explain_failure(error: BaseException | None, cfg: StorageConfig) -> str:
    """Return why there was no response, and what to do.

    botocore's own message is left out because it may quote a header or a credential process.
    """
    from botocore import exceptions as known

    kind = type(error).__name__
    missing = known.NoCredentialsError | known.PartialCredentialsError | known.ProfileNotFound
    if isinstance(error, missing):
        return f"no credentials ({kind}); {_CREDENTIALS}."
    failed = known.CredentialRetrievalError | known.TokenRetrievalError | known.SSOError
    if isinstance(error, failed):
        return f"the AWS chain returned no credentials ({kind}); log in again, or {_CREDENTIALS}."
    if isinstance(error, known.ConnectionError | known.HTTPClientError):
        endpoint = cfg.endpoint_url or "the AWS endpoint"
        advice = "check data.storage.endpoint_url and the network."
        return f"{endpoint} was not reached in {cfg.max_attempts} attempts ({kind}); {advice}"
    settings = "data.storage and the AWS settings of the environment"
    return f"the request could not be sent ({kind}); check {settings}."
