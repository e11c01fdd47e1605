"""Debian's docker-registry on a port of loopback: the field's registry, as an oracle."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path

from tests.support.daemons import daemon
from tests.support.ports import free_port

_CONFIG = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
{more}"""


@contextlib.contextmanager
def docker_registry(folder: Path, *, htpasswd: str = "", upstream: str = "") -> Iterator[int]:
    """Its port. `htpasswd` is the text of a file of logins (bcrypt); empty: everybody may do all. `upstream`
    is the base URL of a registry: it is a pull-through cache of that, and nobody pushes to it."""
    folder.mkdir(parents=True, exist_ok=True)
    port, more = free_port(), ""
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd)
        more = f"auth:\n  htpasswd: {{realm: oracle, path: {folder / 'htpasswd'}}}\n"
    if upstream:
        more += f"proxy: {{remoteurl: {upstream}}}\n"
    config = folder / "config.yml"
    config.write_text(_CONFIG.format(folder=folder / "data", port=port, more=more))
    argv = ["docker-registry", "serve", str(config)]
    with daemon(argv, folder / "log", lambda: _answers(port), start=20):
        yield port


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status in (200, 401)
    except OSError:
        return False
    finally:
        connection.close()
