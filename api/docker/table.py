"""Every route of the Docker API that is served. What is not here is not there; nothing registers itself.

The first that fits is taken. docs/docker-api.md is made from this table.
"""

from __future__ import annotations

from api.docker import events, system
from api.docker.containers import attach, creating, exec, files, lifecycle, listing, logs, stats
from api.docker.containers.body import CREATE
from api.docker.route import Route as R

_ONE = "/containers/{name}"

SYSTEM: tuple[R, ...] = (
    R("GET", "/_ping", system.ping, "Whether it answers"),
    R("HEAD", "/_ping", system.ping, "Whether it answers, and which versions are spoken"),
    R("GET", "/version", system.version, "Versions"),
    R("GET", "/info", system.info, "The fleet", "watch"),
    R("GET", "/events", events.events, "What happens", "stream", events.Events),
)

CONTAINERS: tuple[R, ...] = (
    R("GET", "/containers/json", listing.list_, "Containers", "watch", listing.List),
    R("POST", "/containers/create", creating.create, "Make a container", "command", creating.Create, CREATE),
    R("POST", "/containers/prune", lifecycle.prune, "Remove all that don't run", "command", lifecycle.Prune),
    R("GET", f"{_ONE}/json", listing.inspect_, "One container", "watch", listing.Inspect),
    R("POST", f"{_ONE}/start", lifecycle.start, "Start it", "watch", lifecycle.Start),
    R("POST", f"{_ONE}/stop", lifecycle.stop, "Stop it", "watch", lifecycle.Stop),
    R("POST", f"{_ONE}/restart", lifecycle.restart, "Stop and start it", "watch", lifecycle.Stop),
    R("POST", f"{_ONE}/kill", lifecycle.kill, "Signal its first process", "watch", lifecycle.Kill),
    R("POST", f"{_ONE}/pause", lifecycle.pause, "Freeze it", "watch"),
    R("POST", f"{_ONE}/unpause", lifecycle.unpause, "Thaw it", "watch"),
    R("POST", f"{_ONE}/rename", lifecycle.rename, "Rename it", "command", lifecycle.Rename),
    R("POST", f"{_ONE}/wait", lifecycle.wait, "Wait for its end", "stream", lifecycle.Wait),
    R("GET", f"{_ONE}/logs", logs.logs, "Its output", "stream", logs.Logs),
    R("GET", f"{_ONE}/top", stats.top, "Its processes", "watch", stats.Top),
    R("GET", f"{_ONE}/stats", stats.stats, "What it uses", "stream", stats.Stats),
    R("GET", f"{_ONE}/changes", files.changes, "What it changed of its image", "watch"),
    R("GET", f"{_ONE}/export", files.export, "Its root as a tar", "stream"),
    R("HEAD", f"{_ONE}/archive", files.head, "What a path in it is", "watch", files.AtPath),
    R("GET", f"{_ONE}/archive", files.get, "A path of it as a tar", "stream", files.AtPath),
    R("PUT", f"{_ONE}/archive", files.put, "A tar into a directory of it", "stream", files.Extract),
    R("POST", f"{_ONE}/attach", attach.attach, "Its streams (hijack)", "stream", attach.Attach),
    R("POST", f"{_ONE}/resize", attach.resize, "The size of its terminal", "watch", attach.Resize),
    R("POST", f"{_ONE}/exec", exec.create, "Make an exec", "query", body=exec.CREATE),
    R("POST", "/exec/{name}/start", exec.start, "Start an exec (hijack)", "stream", body=exec.START),
    R("POST", "/exec/{name}/resize", exec.resize, "The size of an exec's terminal", "query", attach.Resize),
    R("GET", "/exec/{name}/json", exec.inspect, "One exec"),
    R("DELETE", _ONE, lifecycle.remove, "Remove it", "watch", lifecycle.Remove),
)

ROUTES: tuple[R, ...] = (*SYSTEM, *CONTAINERS)
