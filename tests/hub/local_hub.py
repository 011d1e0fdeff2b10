"""A hub on this machine: the few calls with which huggingface_hub makes repositories, commits and fetches files."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

Files = dict[str, bytes]


@dataclass
class Repository:
    """The commits of a repository, the newest last, and what else was said of it."""

    commits: list[tuple[str, Files]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    visibility: str | None = None

    def at(self, revision: str) -> tuple[str, Files] | None:
        """The commit that ``revision`` names: main, or a commit's own name."""
        if revision == "main" and self.commits:
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)

    def add(self, changed: Files, message: str) -> str:
        """A commit that changes these files."""
        files = {**(self.commits[-1][1] if self.commits else {}), **changed}
        name = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits.append((name, files))
        self.messages.append(message)
        return name


@dataclass
class LocalHub:
    """All repositories, what was asked, and the objects of large files."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # METHOD /path
    objects: Files = field(default_factory=dict)  # by their SHA-256
    address: str = ""
    token: str | None = None  # without it whoever writes is refused; None: everybody may


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub

    def do_GET(self) -> None:
        self._asked()
        path = self.path.partition("?")[0].strip("/")
        if path.startswith(("api/models/", "api/datasets/")):
            _, _, owner, name, *rest = path.split("/")
            self._describe(f"{owner}/{name}", rest)
        else:
            self._give(path, whole=True)

    def do_HEAD(self) -> None:
        self._asked()
        self._give(self.path.partition("?")[0].strip("/"), whole=False)

    def do_PUT(self) -> None:
        self._asked()
        content = self._body()
        self.hub.objects[hashlib.sha256(content).hexdigest()] = content
        self._answer(200, {})

    def do_POST(self) -> None:
        self._asked()
        path, body = self.path.partition("?")[0].strip("/"), self._body()
        if path != "api/validate-yaml" and self.hub.token not in (None, self._token()):
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            self._answer(200, {"errors": [], "warnings": []})
        elif path == "api/repos/create":
            self._create(json.loads(body))
        elif "/paths-info/" in path:
            self._tell_paths(path, body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._place_objects(json.loads(body))
        elif "/preupload/" in path:
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif "/commit/" in path:
            self._commit("/".join(path.split("/")[2:4]), body)
        else:
            self._answer(404, {})

    def _tell_paths(self, path: str, body: bytes) -> None:
        _, _, owner, name, _, revision = path.split("/")
        at = self.hub.repositories[f"{owner}/{name}"].at(revision)
        asked = parse_qs(body.decode()).get("paths", []) if b"=" in body[:8] else json.loads(body)["paths"]
        self._answer(200, [entry for entry in _entries(at[1] if at else {}) if entry["path"] in asked])

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.hub.repositories:
            self._answer(409, {"error": "You already created this model repo"})
            return
        self.hub.repositories[repo] = Repository(visibility=asked.get("visibility"))
        self._answer(200, {"url": f"{self.hub.address}/{repo}"})

    def _place_objects(self, asked: dict[str, Any]) -> None:
        href = f"{self.hub.address}/objects/"
        objects = [{**one, "actions": {"upload": {"href": href + one["oid"]}}} for one in asked["objects"]]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        files = {}
        for line in lines[1:]:
            told = line["value"]
            whole = line["key"] == "file"
            files[told["path"]] = base64.b64decode(told["content"]) if whole else self.hub.objects[told["oid"]]
        name = self.hub.repositories[repo].add(files, lines[0]["value"]["summary"])
        self._answer(200, {"commitUrl": f"{self.hub.address}/{repo}/commit/{name}", "commitOid": name})

    def _describe(self, repo: str, rest: list[str]) -> None:
        found = self.hub.repositories.get(repo)
        if found is None:
            self._answer(404, {}, {"X-Error-Code": "RepoNotFound"})
            return
        at = found.at(rest[1] if len(rest) > 1 else "main")
        if at is None:
            self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            self._answer(200, _tree(at[1], "/".join(rest[2:]), whole="recursive=true" in self.path.lower()))
        else:
            siblings = [{"rfilename": name} for name in at[1]]
            self._answer(200, {"id": repo, "sha": at[0], "private": False, "tags": [], "siblings": siblings})

    def _give(self, path: str, *, whole: bool) -> None:
        owner, name, _, revision, *inner = path.removeprefix("datasets/").split("/")
        found = self.hub.repositories.get(f"{owner}/{name}")
        at = None if found is None else found.at(revision)
        content = None if at is None else at[1].get("/".join(inner))
        if at is None or content is None:
            self._answer(404, {}, {"X-Error-Code": "EntryNotFound"}, whole=whole)
            return
        headers = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": at[0]}
        self._answer(200, content, headers, whole=whole)

    def _asked(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path.partition('?')[0]}")

    def _token(self) -> str:
        return str(self.headers.get("Authorization", "")).removeprefix("Bearer ")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, code: int, told: Any, headers: dict[str, str] | None = None, *, whole: bool = True) -> None:
        content = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(code)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if whole:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        return


def _entries(files: Files) -> list[dict[str, Any]]:
    return [{"type": "file", "path": name, "size": len(it), "oid": _digest(it)} for name, it in files.items()]


def _tree(files: Files, folder: str, *, whole: bool) -> list[dict[str, Any]]:
    """What lies in a folder of a commit, or also below it."""
    within = f"{folder}/" if folder else ""
    inside = {name.removeprefix(within): it for name, it in files.items() if name.startswith(within)}
    folders = sorted({name.rpartition("/")[0] for name in inside if "/" in name})
    tops = folders if whole else sorted({name.partition("/")[0] for name in folders})
    found = [{"type": "directory", "path": within + name, "oid": "0" * 40, "size": 0} for name in tops]
    shown = {within + name: it for name, it in inside.items() if whole or "/" not in name}
    return [*found, *_entries(shown)]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[LocalHub]:
    """A hub that huggingface_hub in this process talks to, with an empty cache in the folder ``cache``."""
    from huggingface_hub import constants, file_download, utils

    hub = LocalHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # read there before 1.0
    # The library reads HF_ENDPOINT, HF_HOME and the like once, when it is imported.
    for name, value in {
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
        "HF_TOKEN_PATH": str(cache / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "a-token")
    if (forget := getattr(utils, "reset_sessions", None)) is not None:
        forget()  # before its version 1 a session, once made, stays offline
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
