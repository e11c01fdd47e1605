"""Every route of the Docker API that is served. What is not here is not there; nothing registers itself.

The first that fits is taken. docs/docker-api.md is made from this table.
"""

from __future__ import annotations

from api.docker import events, system, usage
from api.docker.buildkit import entrance
from api.docker.buildkit import services as buildkit
from api.docker.builds import cache, serving
from api.docker.builds.request import PARAMETERS, Build
from api.docker.containers import attach, creating, exec, files, lifecycle, listing, logs, stats, update
from api.docker.containers.body import CREATE
from api.docker.images import archives, committing, pulling, pushing, registries, removing
from api.docker.images import listing as images
from api.docker.networks import changes as network_changes
from api.docker.networks import listing as networks
from api.docker.networks.body import CONNECT, DISCONNECT
from api.docker.networks.body import CREATE as CREATE_NETWORK
from api.docker.route import Route as R
from api.docker.swarm import cluster, nodes, services
from api.docker.swarm import logs as swarm_logs
from api.docker.swarm.body import NODE_SPEC
from api.docker.swarm.body import SPEC as SERVICE_SPEC
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
    R("POST", f"{_ONE}/update", update.update, "Change its limits", "command", body=update.UPDATE),
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

_IMAGE = "/images/{name:.*}"

IMAGES: tuple[R, ...] = (
    R("GET", "/images/json", images.list_, "Images", "watch", images.List),
    R("POST", "/images/create", pulling.create, "Pull an image, or import one", "stream", pulling.Create),
    R("POST", "/images/load", archives.load, "Load images of an archive", "stream", archives.Load),
    R("POST", "/images/prune", removing.prune, "Remove what nothing needs", "command", removing.Prune),
    R("GET", "/images/get", archives.save, "Images as an archive", "stream", archives.Save),
    R("GET", "/images/search", registries.search, "Search a registry", "watch", registries.Search),
    R("GET", f"{_IMAGE}/json", images.inspect_, "One image", "watch", images.Inspect),
    R("GET", f"{_IMAGE}/history", images.history, "What it was made by", "watch", images.Inspect),
    R("GET", f"{_IMAGE}/get", archives.save, "It as an archive", "stream", archives.Save),
    R("POST", f"{_IMAGE}/tag", pushing.tag, "Give it one more name", "command", pushing.Tag),
    R("POST", f"{_IMAGE}/push", pushing.push, "Push it to its registry", "stream", pushing.Push),
    R("DELETE", _IMAGE, removing.remove, "Remove a name, or an image", "command", removing.Remove),
    R("POST", "/commit", committing.commit, "An image of what a container has become", "command",
      committing.Commit, committing.COMMIT),
    R("GET", "/distribution/{name:.*}/json", registries.distribution, "An image at its registry", "watch"),
    R("POST", "/auth", registries.auth, "Whether a registry takes a login", "watch", body=registries.AUTH),
)  # fmt: skip

BUILDS: tuple[R, ...] = (
    R("POST", "/build", serving.build, "Build an image (the classic builder's way)", "stream", Build,
      parameters=PARAMETERS),
    R("POST", "/session", entrance.session, "A session of BuildKit's clients (h2c)", "stream"),
    R("POST", "/grpc", buildkit.grpc, "BuildKit's Control and LLBBridge (h2c)", "stream"),
    R("POST", "/build/prune", cache.prune, "Remove what builds keep", "command", cache.Prune),
    R("POST", "/build/cancel", serving.cancel, "End a build", "command", serving.Cancel),
    R("GET", "/system/df", usage.usage, "What is on the hosts' disks", "watch", usage.Usage),
)  # fmt: skip

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

_SERVICE = "/services/{name}"
_NODE = "/nodes/{name}"
SWARM: tuple[R, ...] = (
    R("GET", "/swarm", cluster.inspect, "The fleet as a swarm", "watch"),
    R("POST", "/swarm/init", cluster.init, "503: it is a fleet already"),
    R("POST", "/swarm/join", cluster.join, "503: it is a fleet already"),
    R("POST", "/swarm/leave", cluster.leave, "503: a fleet does not leave itself"),
    R("POST", "/swarm/update", cluster.update, "501: a fleet's settings are its own"),
    R("GET", "/swarm/unlockkey", cluster.unlock_key, "None: nothing is locked"),
    R("POST", "/swarm/unlock", cluster.unlock, "409: nothing is locked"),
    R("GET", "/services", services.list_, "Services", "watch", services.List),
    R("POST", "/services/create", services.create, "Make a service", "command", body=SERVICE_SPEC),
    R("GET", _SERVICE, services.inspect, "One service", "watch", services.Inspect),
    R("DELETE", _SERVICE, services.remove, "Remove it", "command"),
    R("POST", f"{_SERVICE}/update", services.update, "Change it, or take the last change back", "command",
      services.Update, SERVICE_SPEC),
    R("GET", f"{_SERVICE}/logs", swarm_logs.of_service, "The output of its tasks", "stream", logs.Logs),
    R("GET", "/tasks", services.list_tasks, "Tasks", "watch", services.List),
    R("GET", "/tasks/{name}", services.inspect_task, "One task", "watch"),
    R("GET", "/tasks/{name}/logs", swarm_logs.of_task, "Its output", "stream", logs.Logs),
    R("GET", "/nodes", nodes.list_, "Hosts", "watch", nodes.List),
    R("GET", _NODE, nodes.inspect, "One host", "watch"),
    R("POST", f"{_NODE}/update", nodes.update, "Its labels and availability", "command", nodes.Update,
      NODE_SPEC),
    R("DELETE", _NODE, nodes.remove, "Take it out of the fleet", "command", nodes.Remove),
)  # fmt: skip

ROUTES: tuple[R, ...] = (*SYSTEM, *CONTAINERS, *IMAGES, *BUILDS, *NETWORKS, *VOLUMES, *SWARM)


def _unmanaged(route: R) -> R:
    """A route of the swarm family on a host's own socket."""
    return R(route.method, route.path, cluster.no_manager, "503: this host is no manager")


HOST_SYSTEM: tuple[R, ...] = (
    R("GET", "/_ping", system.host_ping, "Whether it answers"),
    R("HEAD", "/_ping", system.host_ping, "Whether it answers, and which versions are spoken"),
    R("GET", "/version", system.version, "Versions"),
    R("GET", "/info", system.host_info, "The host", "watch"),
    R("GET", "/events", events.events, "What happens on it", "stream", events.Events),
)
HOST: tuple[R, ...] = (
    *HOST_SYSTEM,
    *CONTAINERS,
    *IMAGES,
    *BUILDS,
    *NETWORKS,
    *VOLUMES,
    *(_unmanaged(route) for route in SWARM),
)
"""Of a host's own socket: the same handlers, over what the host has."""
