"""Command lines of runc and conmon. Pure.

Invariant: every word is ours or an id, path or number that the agent chose; nothing that an image or a user
supplies reaches a command line (their words travel in config.json and process.json only).
"""

from __future__ import annotations

from collections.abc import Sequence

from model.spec import Struct

SYNC_FD, START_FD, ATTACH_FD = 3, 4, 5
"""Where conmon finds its pipes; told by _OCI_SYNCPIPE, _OCI_STARTPIPE and _OCI_ATTACHPIPE."""


class Programs(Struct):
    """Absolute paths of what we run, runc's state directory, and its cgroup driver."""

    runc: str
    conmon: str
    root: str
    systemd: bool = False


def runc(programs: Programs, *words: str) -> list[str]:
    return [programs.runc, "--root", programs.root, *_driver(programs), *words]


def _driver(programs: Programs) -> list[str]:
    return ["--systemd-cgroup"] if programs.systemd else []


def conmon_create(
    programs: Programs, container: str, directory: str, *, log_path: str, tty: bool, stdin: bool, once: bool
) -> list[str]:
    """Supervise a container from `runc create` to its end.

    `once`: stdin closes when an attached client leaves; otherwise it stays open for the next one. The log
    has no size limit here: conmon would throw old lines away; `agent.logs` rotates it.
    """
    argv = _conmon(programs, container, directory, bundle=directory)
    argv += ["-l", f"k8s-file:{log_path}" if log_path else "none", "-p", f"{directory}/pid"]
    if tty:
        argv.append("-t")
    if stdin:
        argv.append("-i")
        if not once:
            argv.append("--leave-stdin-open")
    return argv


def conmon_exec(
    programs: Programs,
    container: str,
    directory: str,
    *,
    tty: bool,
    stdin: bool,
    attach: bool,
    timeout: int = 0,
) -> list[str]:
    """Supervise a further process, described by `directory`/process.json. Its files are its own: conmon
    names an exec's exit file after the container. `timeout` in seconds, 0 for none: then conmon kills its
    process group."""
    argv = _conmon(programs, container, directory, bundle=directory)
    argv += ["-l", "none", "-p", f"{directory}/pid", "-e"]
    argv += ["--exec-process-spec", f"{directory}/process.json"]
    if attach:
        argv.append("--exec-attach")
    if tty:
        argv.append("-t")
    if stdin:
        argv.append("-i")
    if timeout:
        argv += ["-T", str(timeout)]
    return argv


def _conmon(programs: Programs, container: str, directory: str, *, bundle: str) -> list[str]:
    return [
        programs.conmon,
        *("--api-version", "1", "-c", container, "-u", container, "-n", container[:12]),
        *("-r", programs.runc, "--runtime-arg", f"--root={programs.root}"),
        *(f"--runtime-arg={word}" for word in _driver(programs)),
        *("-b", bundle, "-P", f"{directory}/conmon.pid"),
        *("--exit-dir", directory, "--persist-dir", directory),
        *("--log-level", "error", "--full-attach", "--no-sync-log"),
    ]


def conmon_env(*, attach: bool) -> dict[str, str]:
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "_OCI_SYNCPIPE": str(SYNC_FD),
        "_OCI_STARTPIPE": str(START_FD),
    }
    if attach:
        env["_OCI_ATTACHPIPE"] = str(ATTACH_FD)
    return env


def control_resize(rows: int, cols: int) -> bytes:
    """What conmon's control FIFO takes for a new terminal size."""
    return b"1 %d %d\n" % (rows, cols)


CONTROL_REOPEN_LOG = b"2 0 0\n"


def last_words(output: bytes) -> str:
    """The line of runc's or conmon's stderr that names the cause, without its log dressing."""
    lines: Sequence[str] = [s for s in output.decode(errors="replace").splitlines() if s.strip()]
    if not lines:
        return ""
    line = lines[-1].strip()
    if "msg=" in line:
        line = line.partition("msg=")[2].strip('"').replace('\\"', '"')
    return line.removeprefix("runc create failed: ").removeprefix("exec failed: ")[:500]
