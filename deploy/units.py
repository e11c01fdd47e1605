"""systemd's units of a host's daemons: what a command was told → file → text. Pure.

The daemons take their options from the settings they remember, so a unit names two folders and nothing else.
What containers inherit from the agent (a filter of system calls, a mount namespace, missing capabilities)
would be theirs too: it has none of these. The other two start no containers and are shut in. Sources:
systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.resource-control(5); docs/adr/0030.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from model.errors import InvalidInput
from model.spec import Struct

FOLDER = "/etc/systemd/system"
AGENT, CONTROLLER, PROCESSES = "flota-agent.service", "flota-controller.service", "flota-processes.service"
MARK = "# Made by flota, and by it alone: to change it use a drop-in (systemctl edit)."
BACKS_OFF = 254
"""First systemd whose restarts can come slower and slower."""
_BY_ITSELF = re.compile(r"[A-Za-z0-9_./:@+=,-]+\Z")


class Options(Struct):
    """`program` are the words that run flota's command line, absolute path first; `root` and `run` the
    folders of state and of sockets; `systemd` its version."""

    program: tuple[str, ...]
    root: str = "/var/lib/flota"
    run: str = "/run/flota"
    systemd: int = 252


def agent_units(options: Options) -> Mapping[str, str]:
    """Of every host. Raises InvalidInput for a path that no unit can name."""
    return {f"{FOLDER}/{AGENT}": _agent(options), f"{FOLDER}/{PROCESSES}": _processes(options)}


def controller_units(options: Options) -> Mapping[str, str]:
    """As `agent_units`, of a host with a controller."""
    return {f"{FOLDER}/{CONTROLLER}": _controller(options)}


def is_ours(text: str) -> bool:
    return text.startswith(MARK)


def folders(text: str) -> tuple[str, str]:
    """(root, run) of a unit of ours; empty ones of another."""
    found = re.search(r"^X-FlotaRoot=(.*)\nX-FlotaRun=(.*)$", text, re.MULTILINE)
    return (found[1], found[2]) if found and is_ours(text) else ("", "")


def word(text: str) -> str:
    """One word of a unit's line (systemd.syntax(7); systemd.service(5), "Command lines"). Raises
    InvalidInput."""
    if not text.isprintable():
        raise InvalidInput(f"{text[:80]!r} can't stand in a unit of systemd", hint="Choose another folder")
    escaped = text.replace("%", "%%")
    if _BY_ITSELF.match(text):
        return escaped
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _command(options: Options, verb: str) -> str:
    words = (*options.program, verb, "--root", options.root, "--run", options.run)
    return " ".join(word(text).replace("$", "$$") for text in words)


def _head(options: Options, description: str, *lines: str) -> str:
    text = f"{MARK}\n[Unit]\nDescription={description}\n"
    text += f"X-FlotaRoot={options.root}\nX-FlotaRun={options.run}\n"
    return text + "\n".join((*lines, f"RequiresMountsFor={word(options.root)}", "StartLimitIntervalSec=0\n"))


def _service(options: Options, verb: str) -> list[str]:
    """What all of them have: they come back whatever happens, slower and slower where systemd can."""
    slower: tuple[str, ...] = ("RestartSec=2",)
    if options.systemd >= BACKS_OFF:
        slower = ("RestartSec=500ms", "RestartSteps=6", "RestartMaxDelaySec=30")
    return [
        "",
        "[Service]",
        f"ExecStart={_command(options, verb)}",
        "Restart=always",
        *slower,
        *_run_folder(options),
        "OOMPolicy=continue",
        "OOMScoreAdjust=-900",
        "LimitNOFILE=1048576",
        "TasksMax=infinity",
        "StandardOutput=journal",
        "StandardError=journal",
    ]


def _run_folder(options: Options) -> list[str]:
    """It is on a tmpfs that a boot empties, and is several services' own: none takes it away. One that is not
    below /run the daemons make themselves."""
    below = _below_run(options)
    if not below:
        return []
    return [f"RuntimeDirectory={word(below)}", "RuntimeDirectoryMode=0755", "RuntimeDirectoryPreserve=yes"]


def _below_run(options: Options) -> str:
    below = posixpath.relpath(options.run, "/run")
    return "" if below.startswith(".") or not _BY_ITSELF.match(below) else below


_NOTIFIES = (
    "Type=notify",
    "NotifyAccess=main",
    "WatchdogSec=30",
    "TimeoutStartSec=120",
    "TimeoutStopSec=30",
    "ExecReload=/bin/kill -HUP $MAINPID",
)
_WANTED = ("", "[Install]", "WantedBy=multi-user.target", "")


def _agent(options: Options) -> str:
    head = _head(
        options,
        "flota agent: containers of this host",
        f"Wants=network-online.target {PROCESSES}",
        # firewalls: what they flush as they start need not be mended then
        f"After=network-online.target nftables.service firewalld.service {CONTROLLER} {PROCESSES}",
        _enrolled(options),
    )
    own = (
        # conmon stays in our cgroup and is to outlive us: only we are ended
        "KillMode=process",
        "Delegate=yes",
        "LimitNPROC=infinity",
        "LimitCORE=infinity",
        f"Environment=FLOTA_PROCESSES_UNIT={PROCESSES}",
    )
    return head + "\n".join((*_service(options, "agent"), *_NOTIFIES, *own, *_WANTED))


def _controller(options: Options) -> str:
    head = _head(
        options,
        "flota controller: the fleet's records and API",
        "Wants=network-online.target",
        "After=network-online.target",
    )
    shut = (*_shut_in(options, "controller"), "CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_CHOWN")
    return head + "\n".join((*_service(options, "controller"), *_NOTIFIES, *shut, *_WANTED))


def _processes(options: Options) -> str:
    head = _head(options, "flota: names and proxied ports of containers", _enrolled(options))
    capabilities = "CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_RESOURCE"
    own = (
        "Type=exec",
        # it ends and the next one adopts what it kept; others join its cgroup
        "KillMode=process",
        "Delegate=yes",
        "CPUWeight=800",
        *_shut_in(options, "agent"),
        f"CapabilityBoundingSet={capabilities}",
    )
    return head + "\n".join((*_service(options, "processes"), *own, ""))


def _enrolled(options: Options) -> str:
    """The rest of the line is the path, whatever is in it."""
    return "ConditionPathExists=" + f"{options.root}/agent/enrollment.json".replace("%", "%%")


def _shut_in(options: Options, own: str) -> list[str]:
    """For who starts no container, and writes to the run folder and to `own` of the other; both must be there
    before it is started. Not MemoryDenyWriteExecute: ctypes calls by way of code made at run time."""
    paths = (options.root, options.run, *options.program[:1])
    temporary = any(path.startswith(("/tmp/", "/var/tmp/")) for path in paths)  # noqa: S108 (compared)
    strict = (
        "ProtectSystem=strict",
        f"ReadWritePaths={word(f'{options.root}/{own}')} {word(options.run)}",
    )
    return [
        "NoNewPrivileges=yes",
        *(strict if _below_run(options) else ("ProtectSystem=full",)),
        "ProtectHome=read-only",
        *(() if temporary else ("PrivateTmp=yes",)),
        "PrivateDevices=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
    ]
