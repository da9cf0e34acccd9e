"""A web server on this machine, for tests of downloads."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, remembers what was asked for, and cuts short the files it is told to."""

    asked: list[str]
    cut: set[str]

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.asked.append(self.path)
        if name not in self.cut or "gone" in self.path:
            super().do_GET()
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:-9])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[tuple[tuple[str, str], type[Handler]]]:
    """Serve `folder`: two addresses, the first of which has no file, and the handler."""
    handler = type("FreshHandler", (Handler,), {"asked": [], "cut": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as httpd:
        thread = Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        base = f"http://127.0.0.1:{httpd.server_port}/"
        yield (f"{base}gone/", base), handler
        httpd.shutdown()
        thread.join()
