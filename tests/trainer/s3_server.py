"""As much of S3 as reading and writing a few objects takes: list, head, get with ranges, put, delete; one bucket."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "desk"
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI-EXAMPLEKEY"


@contextmanager
def running(objects: dict[str, bytes]) -> Iterator[str]:
    """Serve ``objects`` (path in the bucket -> content, changed by writes) and yield the endpoint's address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

        def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def error(self, code: int, name: str) -> None:
            self.answer(code, f"<Error><Code>{name}</Code><Message>{name}</Message></Error>".encode())

        def object_name(self) -> str | None:
            """None after an answer was given already."""
            if f"Credential={KEY}/" not in self.headers.get("Authorization", ""):
                self.error(403, "AccessDenied")
                return None
            bucket, _, name = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
            if bucket != BUCKET:
                self.error(404, "NoSuchBucket")
                return None
            return name

        def do_GET(self) -> None:
            name = self.object_name()
            if name == "":
                prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
                rows = "".join(
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(value)}</Size><ETag>x</ETag>"
                    "<LastModified>2017-12-29T00:00:00.000Z</LastModified></Contents>"
                    for key, value in sorted(objects.items())
                    if key.startswith(prefix)
                )
                self.answer(
                    200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
                )
            elif name is not None and name in objects:
                content, span = objects[name], self.headers.get("Range")
                if span is None:
                    self.answer(200, content, ETag='"x"')
                else:
                    first, _, last = span.removeprefix("bytes=").partition("-")
                    part = content[int(first) : int(last) + 1 if last else None]
                    where = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
                    self.answer(206, part, ETag='"x"', Content_Range=where)
            elif name is not None:
                self.error(404, "NoSuchKey")

        def do_HEAD(self) -> None:
            name = self.object_name()
            if name is not None and name in objects:
                size = str(len(objects[name]))
                modified = "Fri, 29 Dec 2017 00:00:00 GMT"
                self.answer(200, ETag='"x"', Content_Length=size, Last_Modified=modified)
            elif name is not None:
                self.answer(404)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            name = self.object_name()
            if name:
                objects[name] = body if "aws-chunked" not in self.headers.get("Content-Encoding", "") else _plain(body)
                self.answer(200, ETag='"x"')

        def do_DELETE(self) -> None:
            name = self.object_name()
            if name:
                objects.pop(name, None)
                self.answer(204)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if self.object_name() == "":
                for key in [key for key in objects if f"<Key>{escape(key)}</Key>" in body]:
                    del objects[key]
                self.answer(200, b"<DeleteResult/>")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _plain(body: bytes) -> bytes:
    """Content of an aws-chunked body: hexadecimal length, CRLF, that many bytes, CRLF, up to a length of zero."""
    result = b""
    while True:
        line, _, body = body.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            return result
        result, body = result + body[:size], body[size + 2 :]
