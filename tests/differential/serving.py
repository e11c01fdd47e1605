"""What ADD of URLs and of repositories fetches: a web server and a git server on the builders' host.

`python -m tests.differential.serving` is the web server. It gives what `PAGES` says, on loopback alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deploy.rig.netns import NetnsRig
from tests.differential.case import THEN, F, archive
from tests.support.gitserver import ENV, Repository, git
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PORT, GIT_PORT = 8087, 9418
WEB, GIT = f"http://127.0.0.1:{PORT}", f"git://127.0.0.1:{GIT_PORT}"
DATED = {"Last-Modified": "Sat, 03 Feb 2001 04:05:06 GMT"}
"""`case.THEN`."""
TEXT = b"of the web\n"
CHECKSUM = f"sha256:{hashlib.sha256(TEXT).hexdigest()}"


@dataclass(frozen=True)
class Page:
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


PAGES: Mapping[str, Page] = {
    "/file": Page(TEXT, DATED),
    "/undated": Page(TEXT),
    "/dir/a%20b": Page(TEXT, DATED),
    "/a.tar": Page(archive(x=F("1", mtime=THEN)), DATED),
    "/moved": Page(headers={"Location": "/file"}, status=302),
    "/round": Page(headers={"Location": "/round"}, status=302),
    "/named": Page(TEXT, {**DATED, "Content-Disposition": 'attachment; filename="other"'}),
    "/": Page(TEXT, DATED),
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = PAGES.get(self.path.partition("?")[0], Page(b"not here\n", status=404))
        self.send_response(page.status)
        for name, value in (*page.headers.items(), ("Content-Length", str(len(page.body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(page.body)

    do_HEAD = do_GET


@contextlib.contextmanager
def serving(rig: NetnsRig, host: str, folder: Path) -> Iterator[None]:
    """Both, on that host."""
    _commit(Repository(folder / "git/r"))
    web = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.differential.serving"]
    repositories = ["env", *(f"{key}={value}" for key, value in ENV.items())]
    repositories += ["git", "-c", "safe.directory=*", "daemon", "--reuseaddr", "--listen=127.0.0.1"]
    repositories += [f"--port={GIT_PORT}", "--export-all", f"--base-path={folder / 'git'}"]
    servers = [rig.spawn(host, argv, log=str(folder / "served.log")) for argv in (web, repositories)]
    try:
        for port in (PORT, GIT_PORT):
            ask = ["busybox", "nc", "-w", "1", "127.0.0.1", str(port), "-e", "true"]
            wait_until(
                lambda ask=ask: rig.exec(host, ask, check=False).returncode == 0,  # type: ignore[misc]
                deadline=60,
                what=f"port {port}",
            )
        yield
    finally:
        for server in servers:
            server.terminate()
            server.wait(30)


def _commit(repository: Repository) -> None:
    """Branches main and side, the tag v1 of what was before."""
    repository.commit({"f": b"first\n", "sub/g": b"g\n", "sub/deep/h": b"h\n", "sub/l": "g"})
    (repository.folder / "f").chmod(0o755)
    git(repository.folder, "commit", "--quiet", "-am", "executable")
    git(repository.folder, "tag", "v1")
    git(repository.folder, "branch", "side")
    repository.commit({"f": b"second\n"})


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), _Handler).serve_forever()
