"""A server on this machine that speaks the few calls of the hub that a download needs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SHA = "0123456789abcdef0123456789abcdef01234567"  # the only commit


@contextlib.contextmanager
def hub_of(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve every ``root/OWNER/NAME`` as a repository: the server's address, and the files that were fetched so far."""
    fetched: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            if path.startswith("api/models/"):
                owner, name, *rest = path.removeprefix("api/models/").split("/")
                self._tell(root / owner / name, tree=rest[:1] == ["tree"])
            else:
                self._give(path, whole=True)

        def do_HEAD(self) -> None:
            self._give(self.path.partition("?")[0].strip("/"), whole=False)

        def _tell(self, folder: Path, *, tree: bool) -> None:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            names = [str(path.relative_to(folder)) for path in files]
            if not files:
                self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif tree:
                entries = [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path)}
                    for name, path in zip(names, files, strict=True)
                ]
                self._answer(200, json.dumps(entries).encode())
            else:
                about: dict[str, Any] = {"id": "/".join(folder.parts[-2:]), "sha": SHA, "private": False, "tags": []}
                self._answer(200, json.dumps({**about, "siblings": [{"rfilename": name} for name in names]}).encode())

        def _give(self, path: str, *, whole: bool) -> None:
            owner, name, _, _, *inner = path.split("/")
            file = root.joinpath(owner, name, *inner)
            if not file.is_file():
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            if whole:
                fetched.append("/".join((owner, name, *inner)))
            self._answer(200, file.read_bytes(), {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": SHA}, whole=whole)

        def _answer(self, code: int, data: bytes, headers: dict[str, str] | None = None, *, whole: bool = True) -> None:
            self.send_response(code)
            for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if whole:
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", fetched
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
