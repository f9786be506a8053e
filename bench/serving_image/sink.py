"""Takes batches of prediction records and forgets them: ``python -m bench.serving_image.sink PORT``."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
