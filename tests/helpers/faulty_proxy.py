"""A loopback proxy for an S3 server that records requests, breaks downloads and returns errors."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

NEW_HEADERS = ("x-amz-checksum-", "x-amz-sdk-checksum-algorithm", "x-amz-trailer")


@dataclass
class FaultyProxy:
    """The faults of the next requests, and the requests so far.

    Attributes:
        port: Port on the loopback.
        faults: "truncate", "flip" or "none", one for each of the next downloads of an object.
        errors: Status and code, returned instead of the next responses.
        checksum_status: Status for requests with the checksum headers that boto3 added in 2025;
            0 forwards them.
        on_upload: Called after every upload.
        requests: Method, path and headers.
    """

    port: int = 0
    faults: list[str] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)
    checksum_status: int = 0
    on_upload: Callable[[], object] = lambda: None
    requests: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def object_requests(self, method: str) -> list[tuple[str, Mapping[str, str]]]:
        """Return path and headers of the requests for objects with this method."""
        found = [(path, h) for m, path, h in self.requests if m == method and is_object(path)]
        return [(path.split("?")[0], headers) for path, headers in found]

    def next_error(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Return the status and code to send instead of the server's response, or None."""
        with self.lock:
            if self.errors:
                return self.errors.pop(0)
        new = any(name.lower().startswith(NEW_HEADERS) for name in headers)
        if self.checksum_status and (new or "aws-chunked" in headers.get("Content-Encoding", "")):
            codes = {501: "NotImplemented", 401: "Unauthorized"}
            return self.checksum_status, codes.get(self.checksum_status, "InvalidRequest")
        return None

    def next_fault(self, method: str, path: str) -> str:
        with self.lock:
            applies = self.faults and method == "GET" and is_object(path)
            return self.faults.pop(0) if applies else "none"


def is_object(path: str) -> bool:
    """Return whether a path is /BUCKET/KEY and not the listing of a bucket."""
    return len(path.split("?")[0].strip("/").split("/")) > 1


@contextmanager
def serve(port: int) -> Iterator[FaultyProxy]:
    """Run a proxy for the server on `port` of the loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    proxy = FaultyProxy(server.server_port)
    server.proxy, server.target_port = proxy, port
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.1 handles `Expect: 100-continue`; otherwise botocore waits one second for a response.
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *args: object) -> None:
        pass

    def _forward(self) -> None:
        proxy: FaultyProxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        proxy.requests.append((self.command, self.path, headers))
        if error := proxy.next_error(headers):
            return self._send_error(*error)
        target = http.client.HTTPConnection("127.0.0.1", self.server.target_port, timeout=30)
        headers.pop("Expect", None)
        target.request(self.command, self.path, body=body, headers=headers)
        response = target.getresponse()
        data = response.read()
        target.close()
        if self.command == "PUT":
            proxy.on_upload()
        fault = proxy.next_fault(self.command, self.path)
        self._send(response.status, dict(response.getheaders()), data, fault=fault)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _forward

    def _send_error(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
        data = text.encode()
        headers = {"Content-Type": "application/xml", "Content-Length": str(len(data))}
        self._send(status, headers, data, fault="none")

    def _send(self, status: int, headers: dict[str, str], data: bytes, *, fault: str) -> None:
        if fault == "flip":
            data = bytes([data[0] ^ 1]) + data[1:]
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", headers.get("Content-Length", str(len(data))))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if fault == "truncate" else data)
        self.close_connection = True
