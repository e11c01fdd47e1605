"""Every route of the Docker API that is served. What is not here is not there; nothing registers itself.

The first that fits is taken. docs/docker-api.md is made from this table.
"""

from __future__ import annotations

from api.docker import events, system
from api.docker.containers import attach, creating, exec, lifecycle, listing, logs
from api.docker.containers.body import CREATE
from api.docker.networks import changes as network_changes
from api.docker.networks import listing as networks
from api.docker.networks.body import CONNECT, DISCONNECT
from api.docker.networks.body import CREATE as CREATE_NETWORK
from api.docker.route import Route as R
from api.docker.volumes import routes as volumes
from api.docker.volumes.body import CREATE as CREATE_VOLUME

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
    R("POST", f"{_ONE}/attach", attach.attach, "Its streams (hijack)", "stream", attach.Attach),
    R("POST", f"{_ONE}/resize", attach.resize, "The size of its terminal", "watch", attach.Resize),
    R("POST", f"{_ONE}/exec", exec.create, "Make an exec", "query", body=exec.CREATE),
    R("POST", "/exec/{name}/start", exec.start, "Start an exec (hijack)", "stream", body=exec.START),
    R("POST", "/exec/{name}/resize", exec.resize, "The size of an exec's terminal", "query", attach.Resize),
    R("GET", "/exec/{name}/json", exec.inspect, "One exec"),
    R("DELETE", _ONE, lifecycle.remove, "Remove it", "watch", lifecycle.Remove),
)

_NETWORK = "/networks/{name}"
NETWORKS: tuple[R, ...] = (
    R("GET", "/networks", networks.list_, "Networks", "watch", networks.List),
    R("POST", "/networks/create", network_changes.create, "Make a network", "command", body=CREATE_NETWORK),
    R("POST", "/networks/prune", network_changes.prune, "Remove all that nobody uses", "command",
      network_changes.Prune),
    R("POST", f"{_NETWORK}/connect", network_changes.connect, "Put a container on it", "watch", body=CONNECT),
    R("POST", f"{_NETWORK}/disconnect", network_changes.disconnect, "Take a container off it", "watch",
      body=DISCONNECT),
    R("GET", _NETWORK, networks.inspect, "One network", "watch", networks.Inspect),
    R("DELETE", _NETWORK, network_changes.remove, "Remove it", "command"),
)  # fmt: skip

_VOLUME = "/volumes/{name}"
VOLUMES: tuple[R, ...] = (
    R("GET", "/volumes", volumes.list_, "Volumes of all hosts", "watch", volumes.List),
    R("POST", "/volumes/create", volumes.create, "Make a volume", "command", body=CREATE_VOLUME),
    R("POST", "/volumes/prune", volumes.prune, "Remove all that nobody uses", "command", volumes.List),
    R("GET", _VOLUME, volumes.inspect, "One volume", "watch"),
    R("DELETE", _VOLUME, volumes.remove, "Remove it from every host", "command", volumes.Remove),
)

ROUTES: tuple[R, ...] = (*SYSTEM, *CONTAINERS, *NETWORKS, *VOLUMES)
