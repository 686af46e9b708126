"""Worlds for tests: busy hub."""

import hashlib
import json
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import ClassVar
from urllib.parse import urlparse

from trials.hub.hub import TASK_FOLDERS


class BusyHub(BaseHTTPRequestHandler):
    """The part of the hub's API that a trial uses, over the bundled folders; it turns everything down twice."""

    folders = TASK_FOLDERS[0].parent / "hub" / "micro"
    commit = "a" * 40
    asked: ClassVar[Counter[str]] = Counter()

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        path = urlparse(self.path).path
        self.asked[f"{self.command} {path}"] += 1
        turn = self.asked[f"{self.command} {path}"]
        if "locked" in path or "nothing" in path:
            code = "GatedRepo" if "locked" in path else "RepoNotFound"
            self.reply(401 if "locked" in path else 404, headers={"X-Error-Code": code})
        elif turn <= 2:
            self.reply(429 if turn == 1 else 503, headers={"Retry-After": "7"})
        else:
            self.answer([part for part in path.split("/") if part])

    do_GET = do_HEAD

    def answer(self, parts):
        if parts[0] == "api" and parts[1] in ("models", "datasets"):
            return self.describe(self.folder(parts[3]), parts[4], parts[6:])
        if "resolve" in parts:
            at = parts.index("resolve")
            path = self.folder(parts[at - 1]).joinpath(*parts[at + 2 :])
            if path.is_file():
                content = path.read_bytes()
                etag = hashlib.sha1(content).hexdigest()
                return self.reply(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit})
        return self.reply(404, headers={"X-Error-Code": "EntryNotFound"})

    def folder(self, name):
        return self.folders if name == "model" else self.folders / name

    def describe(self, folder, what, below):
        if not folder.joinpath(*below).is_dir():
            return self.reply(404, headers={"X-Error-Code": "EntryNotFound"})
        if what == "revision":
            return self.reply(200, json.dumps({"id": f"some/{folder.name}", "sha": self.commit, "siblings": []}).encode())
        entries = [
            {"type": "file" if path.is_file() else "directory", "path": str(path.relative_to(folder)), "size": 1, "oid": "0"}
            for path in folder.joinpath(*below).iterdir()
        ]
        return self.reply(200, json.dumps(entries).encode())

    def reply(self, status, content=b"", headers=None):
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
