"""Objects under one `s3://bucket/prefix`, listed, read and written, with every failure as a sentence; boto3's home."""

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

PART_BYTES = (
    64 * 2**20
)  # larger files go up in parts of this size; 10,000 parts, S3's limit, are 640 GB
CHUNK_BYTES = 2**20
CONNECT_TIMEOUT_S = 10  # boto3's 60 s make five attempts at a dead endpoint five minutes long

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
_CREDENTIALS = "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or a profile of the AWS chain"


@dataclass(frozen=True)
class RemoteObject:
    """An object below a root.

    Attributes:
        name: Its key below the root's prefix, `/` between folders.
        size: Bytes.
        modified: When it was written.
        sha256: Of its bytes, 64 hex digits, as its metadata says; None where it says nothing.
        etag: The store's own mark of these bytes, with its quotes.
        md5: The ETag, where that is the MD5 of the bytes (one part, not encrypted with a key of its own).
    """

    name: str
    size: int
    modified: datetime
    sha256: str | None = None
    etag: str = ""
    md5: str | None = None


class BrokenOff(Exception):
    """A download ended before its last byte; what came is kept."""


class Root:
    """One `s3://bucket/prefix`, with the credentials of the environment or the AWS chain. To be used with `with`.

    Raises:
        ConfigError: Not such a URL, or an endpoint that is malformed or holds credentials.
        StorageError: From every method, when the store cannot be reached or refuses.
    """

    def __init__(self, url: str, cfg: StorageConfig) -> None:
        check_storage(url, cfg)
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"s3://{self.bucket}/{self.prefix}"
        self.cfg = cfg
        with self._explained(self.url):
            self.client = _client(cfg)

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def entries(self) -> list[RemoteObject]:
        """All objects below the root as a listing shows them, without their SHA-256, ascending by name."""
        with self._explained(self.url):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix
            )
            found = [o for page in pages for o in page.get("Contents", [])]
        return sorted(
            (
                RemoteObject(
                    o["Key"].removeprefix(self.prefix), o["Size"], o["LastModified"], etag=o["ETag"]
                )
                for o in found
                if not (
                    o["Key"].endswith("/") and o["Size"] == 0
                )  # how consoles mark an empty folder
            ),
            key=lambda o: o.name,
        )

    def head(self, name: str) -> RemoteObject:
        """One object with the SHA-256 of its metadata."""
        with self._explained(self.url + name):
            h = self.client.head_object(Bucket=self.bucket, Key=self.prefix + name)
        own = h["Metadata"].get("sha256", "").lower()
        sha256 = own if re.fullmatch("[0-9a-f]{64}", own) else None
        plain = re.fullmatch('"([0-9a-f]{32})"', h["ETag"]) if _etag_is_md5(h) else None
        return RemoteObject(
            name,
            h["ContentLength"],
            h["LastModified"],
            sha256,
            h["ETag"],
            plain.group(1) if plain else None,
        )

    def read(self, wanted: RemoteObject, file: BinaryIO, tick: Callable[[int], None]) -> None:
        """Append an object's bytes to a file, from the byte where the file ends; afterwards it has at most one more.

        Raises:
            BrokenOff: The connection ended before the last byte.
            StorageError: The object is gone, was replaced, or may not be read.
        """
        start = file.seek(0, 2)
        span = {"Range": f"bytes={start}-"} if start else {}
        with self._explained(self.url + wanted.name):
            answer = self.client.get_object(
                Bucket=self.bucket, Key=self.prefix + wanted.name, IfMatch=wanted.etag, **span
            )
        if start and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
            file.truncate(0)  # the store sends the whole object
            tick(-start)
        for chunk in _chunks(answer["Body"]):
            tick(file.write(chunk))
            if file.tell() > wanted.size:  # never fill the disk with what is not the object
                return

    def write(
        self, path: Path, name: str, sha256: str, *, n_threads: int, tick: Callable[[int], None]
    ) -> None:
        """Upload a file with its SHA-256 as metadata, in parts if it is large; whole or not at all."""
        from boto3.s3.transfer import TransferConfig

        parts = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=n_threads,
        )
        with self._explained(self.url + name):
            self.client.upload_file(
                str(path),
                self.bucket,
                self.prefix + name,
                ExtraArgs={"Metadata": {"sha256": sha256}},
                Config=parts,
                Callback=tick,
            )

    @contextmanager
    def _explained(self, where: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            raise StorageError(f"{where}: {_refusal(error, self.cfg)}") from error
        except (
            Boto3Error
        ) as error:  # of an upload: it quotes the store's answer, which is its context
            cause = error.__context__
            why = (
                _refusal(cause, self.cfg)
                if isinstance(cause, ClientError)
                else _failure(cause, self.cfg)
            )
            raise StorageError(f"{where}: {why}") from cause
        except BotoCoreError as error:
            raise StorageError(f"{where}: {_failure(error, self.cfg)}") from error


def _client(cfg: StorageConfig) -> Any:
    import boto3
    import botocore.session
    from botocore.config import Config

    settings = Config(
        # Bucket names as host names need a wildcard certificate, which other stores than AWS often lack.
        s3={"addressing_style": "auto" if cfg.endpoint_url is None else "path"},
        retries={"total_max_attempts": cfg.max_attempts, "mode": "standard"},
        request_checksum_calculation=cfg.checksum,
        response_checksum_validation=cfg.checksum,
        max_pool_connections=2 * cfg.n_transfers,
        connect_timeout=CONNECT_TIMEOUT_S,
    )
    own = (
        botocore.session.Session()
    )  # credentials are read anew; boto3's default session is not made for threads
    own.register_component("data_loader", _models())
    session = boto3.session.Session(botocore_session=own)
    return session.client(
        "s3", endpoint_url=cfg.endpoint_url, region_name=cfg.region, config=settings
    )


@functools.cache
def _models() -> Any:
    """What botocore knows of services, read once: 0.03 s for a further client in place of 0.2 s."""
    from botocore.loaders import create_loader

    return create_loader()


def _etag_is_md5(head: dict[str, Any]) -> bool:
    return (
        head.get("ServerSideEncryption", "AES256") == "AES256"
        and "SSECustomerAlgorithm" not in head
    )


def _chunks(body: Any) -> Iterator[bytes]:
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    with closing(body):
        try:
            yield from body.iter_chunks(CHUNK_BYTES)
        except (BotoCoreError, HTTPError) as error:
            raise BrokenOff(type(error).__name__) from error


def _refusal(error: Any, cfg: StorageConfig) -> str:
    """Why the store refused, and what to do. Its own message is left out: it may quote the request."""
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = re.sub(r"\W", "", str(error.response.get("Error", {}).get("Code", "")))[:60]
    answer = f"{status} {code}" if code not in ("", str(status)) else str(status)
    return f"{_reason(code, status, cfg)} ({error.operation_name} was answered {answer})"


def _reason(code: str, status: int, cfg: StorageConfig) -> str:
    if code in _EXPIRED:
        return "the session token has expired; fetch fresh credentials."
    if code in _SKEWED:
        return "this machine's clock is off by more than the store allows; set it, and try again."
    if code in _THROTTLED or status in (429, 503):
        return f"still throttled after {cfg.max_attempts} attempts; wait, or lower data.storage.n_transfers."
    if code in _REGION or status == 301:
        return f"the bucket is not in region {cfg.region}; set data.storage.region to its own."
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return f"the store does not know this pair of key id and secret; {_CREDENTIALS}."
    if code == "NoSuchBucket":
        return "there is no such bucket; check its name, data.storage.endpoint_url and the account."
    if status == 412:
        return "it was replaced while it was read; pull again."
    if status == 403:
        return "these credentials may not do this; ask the bucket's owner, or use others."
    if status == 404:
        return "there is no such object (or bucket); `reranker data list` shows what is there."
    if status in (400, 401, 501) and cfg.checksum == "when_supported":
        return "the store may refuse new checksum headers; set data.storage.checksum=when_required (--checksum)."
    if status == 401:
        return f"the store does not accept these credentials; {_CREDENTIALS}."
    if status >= 500:
        return f"the store failed at each of {cfg.max_attempts} attempts; try again later."
    return "the store refuses the request; check the root, data.storage.endpoint_url and data.storage.region."


def _failure(error: BaseException | None, cfg: StorageConfig) -> str:
    """Why no answer came. botocore's own message is left out: it may quote a header or a credential process."""
    from botocore import exceptions as known

    kind = type(error).__name__
    if isinstance(
        error, known.NoCredentialsError | known.PartialCredentialsError | known.ProfileNotFound
    ):
        return f"no credentials ({kind}); {_CREDENTIALS}."
    if isinstance(
        error, known.CredentialRetrievalError | known.TokenRetrievalError | known.SSOError
    ):
        return f"the AWS chain gave no credentials ({kind}); log in again, or {_CREDENTIALS}."
    if isinstance(error, known.ConnectionError | known.HTTPClientError):
        place = cfg.endpoint_url or "the AWS endpoint"
        advice = "check data.storage.endpoint_url and the network."
        return f"{place} was not reached in {cfg.max_attempts} attempts ({kind}); {advice}"
    return f"the request could not be made ({kind}); check data.storage and the AWS settings of the environment."
