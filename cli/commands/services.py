"""`flota service`: replicated and global services."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from cli import render
from cli.context import App, each, format_option, now, out, pass_app, segment, short, show, shown_image
from cli.options import (
    container_options,
    health_options,
    policy_options,
    read_files,
    registry_options,
    restart_options,
)
from cli.parse.container import container_spec, environment, pairs
from cli.parse.health import health_check
from cli.parse.ports import parse_service_publish
from cli.parse.rollout import restart_policy, update_policy
from cli.render import Column
from model.api import InstanceInfo, ServiceInfo, UpdateService
from model.codec import convert_strict, to_plain
from model.errors import InvalidInput, NotFound
from model.quantity import parse_bytes, parse_cpus, parse_duration
from model.spec import (
    Global,
    Placement,
    Publish,
    Replicated,
    Reservations,
    Resources,
    RestartPolicy,
    ServiceSpec,
    UpdatePolicy,
)

BALANCES = ("round-robin", "random", "source-hash", "sticky")
ENDPOINT_MODE = "Its name leads to one address (vip) or to each container's (dnsrr)"
PUBLISH = "[PUBLISHED:]TARGET, or published=8080,target=80[,mode=host][,on=CONSTRAINT][,allow=RANGE]"
BALANCE = "Which container a new connection to its address gets"


ALWAYS = RestartPolicy(condition="always")


@click.group()
def service() -> None:
    """Services: containers kept running on the fleet."""


@service.command(
    "create", context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]}
)
@click.option("--name", required=False, default="", help="Its name")
@click.option("--replicas", help="How many")
@click.option("--mode", type=click.Choice(["replicated", "global"]), default="replicated")
@click.option("--publish", "-p", multiple=True, help=PUBLISH)
@click.option("--replicas-max-per-node", type=int, default=0)
@click.option("--placement", "strategy", type=click.Choice(["spread", "binpack"]), default="spread")
@click.option("--reserve-cpu", default="", help="Set aside on the host, for example 0.5")
@click.option("--reserve-memory", default="", help="Set aside on the host, for example 64m")
@policy_options
@click.option("--endpoint-mode", type=click.Choice(["vip", "dnsrr"]), default="vip", help=ENDPOINT_MODE)
@click.option("--balance", type=click.Choice(BALANCES), default=BALANCES[0], help=BALANCE)
@click.option("--limit-cpu", "limit_cpu", help="As --cpus")
@click.option("--limit-memory", "limit_memory", help="As --memory")
@click.option("--limit-pids", type=int, help="As --pids-limit")
@restart_options
@click.option("--stop-grace-period", help="As --stop-timeout, for example 30s")
@click.option("--drain", default="", help="Time between its last new connection and the stop signal (1s)")
@click.option("--container-label", multiple=True, help="KEY=VALUE on its containers")
@click.option("--tty", "-t", is_flag=True)
@registry_options
@click.option("--detach", "-d", is_flag=True, help="As in docker; flota waits for nobody either way")
@click.option("--quiet", "-q", is_flag=True, help="As in docker; no progress is shown either way")
@container_options
@click.argument("image")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@pass_app
def create(app: App, image: str, args: tuple[str, ...], **flags: Any) -> None:
    """Create a service."""
    auth = {"keep_login": flags.pop("with_registry_auth"), "resolve": not flags.pop("no_resolve_image")}
    login = app.login_for(image, needed=auth["keep_login"])
    spec = _spec(image, args, flags)
    made = app.call("POST", "/v1/services", body=to_plain(spec), login=login, **auth)
    _warn(made)
    out(made["service"]["id"])


def _spec(image: str, args: tuple[str, ...], flags: dict[str, Any]) -> ServiceSpec:
    from msgspec.structs import replace

    labels = pairs(flags.pop("label"))
    ports = tuple(p for text in flags.pop("publish") for p in parse_service_publish(text))
    read_files(flags)
    flags["label"] = flags["container_label"]
    for ours, dockers in (("cpus", "limit_cpu"), ("memory", "limit_memory"), ("pids_limit", "limit_pids")):
        flags[ours] = flags[dockers] if flags[dockers] is not None else flags[ours]
    if flags["stop_grace_period"]:
        flags["stop_timeout"] = parse_duration(flags["stop_grace_period"])
    container = container_spec(flags, image, args, environ=os.environ, cwd=os.getcwd())
    if flags["drain"]:
        container = replace(container, drain=parse_duration(flags["drain"]))
    if flags["mode"] == "global" and flags["replicas"] is not None:
        raise InvalidInput("a global service has no --replicas")
    return ServiceSpec(
        name=flags["name"] or _name_of(image),
        container=replace(container, ports=ports, restart=restart_policy(flags, ALWAYS)),
        mode=Global()
        if flags["mode"] == "global"
        else Replicated(replicas=parse_replicas(flags["replicas"] or "1")),
        placement=Placement(
            constraints=flags["constraint"],
            max_per_host=flags["replicas_max_per_node"],
            strategy=flags["strategy"],
            reservations=Reservations(
                nano_cpus=parse_cpus(flags["reserve_cpu"] or "0"),
                memory=parse_bytes(flags["reserve_memory"] or "0"),
            ),
        ),
        update=update_policy(flags, "update", UpdatePolicy()),
        rollback=update_policy(flags, "rollback", UpdatePolicy()),
        endpoint_mode=flags["endpoint_mode"],
        balance=flags["balance"],
        labels=labels,
        may_end=flags["restart_condition"] == "none",
    )


def _name_of(image: str) -> str:
    """`docker.io/library/web:1` → `web-` and four digits, so that two of an image can live."""
    import secrets

    base = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    return f"{base}-{secrets.token_hex(2)}"


def parse_replicas(text: str) -> int:
    """Raises InvalidInput."""
    if not text.isdecimal() or int(text) > 100_000:
        raise InvalidInput(f"replicas {text[:40]!r} is not a number from 0 to 100000")
    return int(text)


@service.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Only ids")
@format_option
@pass_app
def ls(app: App, quiet: bool, format_: str) -> None:
    """List services."""
    columns: list[Column] = [
        ("ID", lambda s: short(s["service"]["id"])),
        ("NAME", lambda s: s["service"]["spec"]["name"]),
        ("MODE", lambda s: s["service"]["spec"].get("mode", {}).get("mode", "replicated")),
        ("REPLICAS", lambda s: f"{s.get('running', 0)}/{s.get('wanted', 0)}"),
        ("IMAGE", lambda s: shown_image(s["service"]["spec"]["container"]["image"])),
        ("PORTS", lambda s: render.published_text(s["service"].get("ingress", ()))),
        ("CONDITION", lambda s: "; ".join(c["message"] for c in s["service"].get("conditions", ()))),
    ]
    show(
        app.call("GET", "/v1/services"),
        columns,
        of=ServiceInfo,
        format_=format_,
        quiet=columns[0] if quiet else None,
    )


@service.command("ps")
@click.option("--quiet", "-q", is_flag=True, help="Only ids")
@click.option("--no-trunc", is_flag=True)
@format_option
@click.argument("refs", nargs=-1, required=True, metavar="SERVICE…")
@pass_app
def ps(app: App, refs: tuple[str, ...], quiet: bool, no_trunc: bool, format_: str) -> None:
    """List a service's containers, with their last ones."""
    at = now()
    items = [i for ref in refs for i in app.call("GET", f"/v1/services/{segment(ref)}").get("instances", ())]
    columns: list[Column] = [
        ("ID", lambda i: short(i["instance"]["id"], no_trunc)),
        ("NAME", lambda i: i["instance"]["name"]),
        ("IMAGE", lambda i: shown_image(i["instance"]["spec"]["image"])),
        ("NODE", lambda i: i.get("host_name", "")),
        ("DESIRED", lambda i: i["instance"].get("desired", "running")),
        ("STATE", lambda i: render.phase_text(i["status"], at)),
        ("PORTS", lambda i: render.published_text(i["status"].get("ports", ()))),
        ("WHY", why_of),
    ]
    show(items, columns, of=InstanceInfo, format_=format_, quiet=columns[0] if quiet else None)


def why_of(item: dict[str, Any]) -> str:
    """What its host says of it, or else why it was made."""
    status = item["status"]
    said = status.get("message", "") or status.get("health_message", "")
    return said or str(item["instance"].get("reason", ""))


@service.command("scale")
@click.argument("pairs_", nargs=-1, required=True, metavar="SERVICE=REPLICAS…")
@pass_app
def scale(app: App, pairs_: tuple[str, ...]) -> None:
    """Set how many replicas services have."""
    for ref, replicas in [_scaled(pair) for pair in pairs_]:  # all are sound before one is changed
        app.call("POST", f"/v1/services/{segment(ref)}/scale", replicas=replicas)
        out(f"{ref} scaled to {replicas}")


def _scaled(pair: str) -> tuple[str, int]:
    ref, equals, count = pair.partition("=")
    if not equals or not ref:
        raise click.UsageError(f"{pair!r} is not SERVICE=REPLICAS")
    return ref, parse_replicas(count)


@service.command("update")
@click.option("--image", help="New image")
@click.option("--args", "args", help="New command line, split as a shell splits words")
@click.option("--replicas", help="How many")
@click.option("--env-add", multiple=True, help="KEY=VALUE")
@click.option("--env-rm", multiple=True, help="KEY")
@click.option("--label-add", multiple=True, help="KEY=VALUE")
@click.option("--label-rm", multiple=True, help="KEY")
@click.option("--constraint-add", multiple=True)
@click.option("--constraint-rm", multiple=True)
@click.option("--publish-add", multiple=True, help=PUBLISH)
@click.option("--publish-rm", multiple=True, help="[PUBLISHED:]TARGET[/PROTOCOL]")
@click.option("--limit-cpu", "cpus", help="As --cpus; 0: none")
@click.option("--limit-memory", "memory", help="As --memory; 0: none")
@restart_options
@policy_options
@click.option("--endpoint-mode", type=click.Choice(["vip", "dnsrr"]), help=ENDPOINT_MODE)
@click.option("--balance", type=click.Choice(BALANCES), help=BALANCE)
@health_options
@registry_options
@click.option("--force", is_flag=True, help="Replace all containers even if nothing changed")
@click.option("--rollback", is_flag=True, help="As `service rollback`")
@click.argument("ref", metavar="SERVICE")
@pass_app
def update(app: App, ref: str, rollback: bool, **flags: Any) -> None:
    """Change a service; its containers are replaced by its update policy."""
    if rollback:
        if any(value not in (None, (), "") and value is not False for value in flags.values()):
            raise InvalidInput("--rollback changes nothing else", hint="Leave the other options away")
        take_back(app, ref)
        return
    keep, fixed = flags.pop("with_registry_auth"), flags.pop("no_resolve_image")
    current = app.call("GET", f"/v1/services/{segment(ref)}")["service"]
    spec = updated(convert_strict(current["spec"], ServiceSpec), flags)
    body = UpdateService(spec=spec, revision=current["revision"])
    auth: dict[str, Any] = {"keep_login": keep, "resolve": bool(flags["image"]) and not fixed}
    login = app.login_for(spec.container.image, needed=keep) if any(auth.values()) else ""
    _warn(app.call("PUT", f"/v1/services/{segment(ref)}", body=to_plain(body), login=login, **auth))
    out(ref)


def _warn(made: dict[str, Any]) -> None:
    for words in made.get("warnings", ()):
        sys.stderr.write(f"flota: {render.clean(words)}\n")


def updated(spec: ServiceSpec, flags: dict[str, Any]) -> ServiceSpec:
    """The spec with the flags' changes. Raises InvalidInput."""
    import shlex
    import time

    from msgspec.structs import replace

    container = spec.container
    env = {k: v for k, v in container.env.items() if k not in flags["env_rm"]}
    env.update(environment(flags["env_add"], (), os.environ))
    if flags["force"]:
        env["FLOTA_FORCED"] = str(int(time.time()))
    changes: dict[str, Any] = {"env": env, "health": health_check(flags, container.health)}
    changes["ports"] = republished(container.ports, flags)
    changes["restart"] = restart_policy(flags, container.restart)
    if flags["image"]:
        changes["image"] = flags["image"]
    if flags["args"] is not None:
        changes["args"] = tuple(shlex.split(flags["args"])) or None
    changes["resources"] = _relimited(container.resources, flags)
    labels = {k: v for k, v in spec.labels.items() if k not in flags["label_rm"]}
    kept = tuple(c for c in spec.placement.constraints if c not in flags["constraint_rm"])
    mode = spec.mode
    if flags["replicas"] is not None:
        if not isinstance(mode, Replicated):
            raise InvalidInput("a global service has no replicas")
        mode = Replicated(replicas=parse_replicas(flags["replicas"]))
    return replace(
        spec,
        container=replace(container, **changes),
        labels={**labels, **pairs(flags["label_add"])},
        placement=replace(spec.placement, constraints=(*kept, *flags["constraint_add"])),
        update=update_policy(flags, "update", spec.update),
        rollback=update_policy(flags, "rollback", spec.rollback),
        mode=mode,
        endpoint_mode=flags["endpoint_mode"] or spec.endpoint_mode,
        balance=flags["balance"] or spec.balance,
        may_end=spec.may_end if not flags["restart_condition"] else flags["restart_condition"] == "none",
    )


def _relimited(before: Resources, flags: dict[str, Any]) -> Resources:
    """Of `--limit-cpu` and `--limit-memory`; 0 takes a limit away, memory's with that of swap."""
    from msgspec.structs import replace

    cpus = before.nano_cpus if flags["cpus"] is None else parse_cpus(flags["cpus"])
    memory = before.memory if flags["memory"] is None else parse_bytes(flags["memory"])
    return replace(before, nano_cpus=cpus, memory=memory, memory_swap=before.memory_swap if memory else 0)


def republished(ports: tuple[Publish, ...], flags: dict[str, Any]) -> tuple[Publish, ...]:
    """Of `--publish-rm` and `--publish-add`. Raises InvalidInput, NotFound."""
    left = ports
    for text in flags["publish_rm"]:
        for gone in parse_service_publish(text):
            kept = tuple(port for port in left if not _meant(gone, port))
            if kept == left:
                raise NotFound(f"the service publishes no port {text[:60]}")
            left = kept
    return (*left, *(port for text in flags["publish_add"] for port in parse_service_publish(text)))


def _meant(wish: Publish, port: Publish) -> bool:
    """Whether a port is one of those that a `--publish-rm` names, of whatever mode."""
    same = (wish.target, wish.protocol) == (port.target, port.protocol)
    return same and wish.published in (0, port.published)


@service.command("rollback")
@click.argument("ref", metavar="SERVICE")
@pass_app
def rollback_(app: App, ref: str) -> None:
    """Take a service's last change back; its containers are replaced by its rollback policy."""
    take_back(app, ref)


def take_back(app: App, ref: str) -> None:
    app.call("POST", f"/v1/services/{segment(ref)}/rollback")
    out(ref)


@service.command("rm")
@click.argument("refs", nargs=-1, required=True, metavar="SERVICE…")
@pass_app
def rm(app: App, refs: tuple[str, ...]) -> None:
    """Remove services with their containers."""
    each(refs, lambda ref: app.call("DELETE", f"/v1/services/{segment(ref)}"))


@service.command("logs")
@click.option("--follow", "-f", is_flag=True, help="Go on as they grow")
@click.option("--tail", "-n", default="all", help="Lines from the end, of each container")
@click.option("--since", default="")
@click.option("--until", default="")
@click.option("--timestamps", "-t", is_flag=True)
@click.option("--raw", is_flag=True, help="Without the containers' names")
@click.argument("ref", metavar="SERVICE")
@pass_app
def logs(app: App, ref: str, **flags: Any) -> None:
    """Show what a service's containers printed."""
    from cli.commands.streams import read_logs

    read_logs(app, f"/v1/services/{segment(ref)}/logs", flags)


@service.command("inspect")
@click.option("--pretty", is_flag=True, help="For people")
@click.argument("refs", nargs=-1, required=True, metavar="SERVICE…")
@pass_app
def inspect(app: App, refs: tuple[str, ...], pretty: bool) -> None:
    """Show everything about services."""
    import json

    from cli.commands.inspect import find

    values = [value for ref in refs for value in find(app, ref, "service")]
    if not pretty:
        out(json.dumps(values, indent=4))
        return
    for value in values:
        spec = value["service"]["spec"]
        out(f"Name: {spec['name']}\nImage: {spec['container']['image']}")
        if ports := render.published_text(value["service"].get("ingress", ())):
            out(f"Ports: {ports}")
        out(f"Running: {value.get('running', 0)} of {value.get('wanted', 0)}")
        if rollout := value["service"].get("rollout"):
            out(f"Update: {rollout.get('state', 'updating')}")
        for line in value.get("explanation", ()):
            sys.stdout.write(f"  - {render.clean(line)}\n")
