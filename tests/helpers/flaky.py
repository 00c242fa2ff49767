"""A loopback proxy before an S3 server that cuts, flips, refuses and remembers."""

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
class Flaky:
    """What the proxy does with the next requests, and what it has seen."""

    port: int = 0
    faults: list[str] = field(
        default_factory=list
    )  # "cut" | "flip" | "whole", each for the next download of an object
    answers: list[tuple[int, str]] = field(
        default_factory=list
    )  # status and code in place of the next answers
    refuse_checksums: int = (
        0  # the status for requests with checksum headers that came in 2025; 0 passes them on
    )
    on_upload: Callable[[], object] = lambda: None
    seen: list[tuple[str, str, Mapping[str, str]]] = field(
        default_factory=list
    )  # method, path, headers
    lock: Lock = field(default_factory=Lock)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of(self, method: str) -> list[tuple[str, Mapping[str, str]]]:
        """Path and headers of the requests for objects with this method."""
        return [
            (path.split("?")[0], h) for m, path, h in self.seen if m == method and is_object(path)
        ]

    def refusal(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """The status and code that a request gets in place of the server's answer."""
        with self.lock:
            if self.answers:
                return self.answers.pop(0)
        new = any(name.lower().startswith(NEW_HEADERS) for name in headers)
        if self.refuse_checksums and (new or "aws-chunked" in headers.get("Content-Encoding", "")):
            return self.refuse_checksums, {501: "NotImplemented", 401: "Unauthorized"}.get(
                self.refuse_checksums, "InvalidRequest"
            )
        return None

    def fault(self, method: str, path: str) -> str:
        with self.lock:
            return (
                self.faults.pop(0)
                if self.faults and method == "GET" and is_object(path)
                else "whole"
            )


def is_object(path: str) -> bool:
    """Whether a path is /BUCKET/KEY rather than a bucket's listing."""
    return len(path.split("?")[0].strip("/").split("/")) > 1


@contextmanager
def proxy(port: int) -> Iterator[Flaky]:
    """A proxy before the server on `port` of the loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    flaky = Flaky(server.server_port)
    server.flaky, server.behind = flaky, port
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield flaky
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = (
        "HTTP/1.1"  # answers `Expect: 100-continue`, for which botocore else waits a second
    )
    server: Any

    def log_message(self, *args: object) -> None:
        pass

    def _relay(self) -> None:
        flaky: Flaky = self.server.flaky
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        flaky.seen.append((self.command, self.path, headers))
        if refused := flaky.refusal(headers):
            return self._refuse(*refused)
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=30)
        headers.pop("Expect", None)
        behind.request(self.command, self.path, body=body, headers=headers)
        answer = behind.getresponse()
        data = answer.read()
        behind.close()
        if self.command == "PUT":
            flaky.on_upload()
        self._send(
            answer.status, dict(answer.getheaders()), data, flaky.fault(self.command, self.path)
        )

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _relay

    def _refuse(self, status: int, code: str) -> None:
        text = (
            f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        )
        self._send(
            status,
            {"Content-Type": "application/xml", "Content-Length": str(len(text))},
            text,
            "whole",
        )

    def _send(self, status: int, headers: dict[str, str], data: bytes, fault: str) -> None:
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
            self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
        self.close_connection = True
