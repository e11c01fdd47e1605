"""OpenRC's services of a host's daemons, for hosts such as Alpine's: options → file → text. Pure.

As with systemd (`deploy.units`) a service names two folders and nothing else, and the agent alone is ended:
conmons are sessions of their own, and a service's cgroup is not cleaned up. Sources: openrc-run(8),
supervise-daemon(8), OpenRC's supervise-daemon-guide.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from deploy.units import Options
from model.errors import InvalidInput

FOLDER = "/etc/init.d"
AGENT, CONTROLLER = "flota-agent", "flota-controller"
SHEBANG = "#!/sbin/openrc-run"
MARK = "# Made by flota, and by it alone: to change it use /etc/conf.d."


def services(options: Options, name: str) -> Mapping[str, str]:
    """Of `agent` or `controller`. Raises InvalidInput for a path that no service can name."""
    if name == "agent":
        return {f"{FOLDER}/{AGENT}": _service(options, "agent", "containers of this host", "need localmount")}
    return {
        f"{FOLDER}/{CONTROLLER}": _service(
            options, "controller", "the fleet's records and API", "need localmount"
        )
    }


def is_ours(text: str) -> bool:
    return text.startswith(f"{SHEBANG}\n{MARK}")


def folders(text: str) -> tuple[str, str]:
    """(root, run) of a service of ours; empty ones of another."""
    found = re.search(r"^# root: (.*)\n# run: (.*)$", text, re.MULTILINE)
    return (found[1], found[2]) if found and is_ours(text) else ("", "")


def _service(options: Options, verb: str, what: str, need: str) -> str:
    """The manager reads `command` and `command_args` twice as a shell does, hence the quotes in quotes."""
    for path in (options.root, options.run, *options.program):
        if not path.isprintable():
            raise InvalidInput(f"{path[:80]!r} can't stand in a service", hint="Choose another folder")
    words = [*options.program[1:], verb, "--root", options.root, "--run", options.run]
    log = shlex.quote(shlex.quote(f"{options.root}/log/{verb}.log"))
    return f"""{SHEBANG}
{MARK}
# root: {options.root}
# run: {options.run}
name="flota {verb}"
description="{what}"
supervisor=supervise-daemon
command={shlex.quote(shlex.quote(options.program[0]))}
command_args={shlex.quote(shlex.join(words))}
output_log={log}
error_log={log}
respawn_delay=1
respawn_max=0
retry="SIGTERM/30/SIGKILL/5"
rc_cgroup_cleanup=no
rc_ulimit="-n 1048576"
extra_started_commands="reload"

depend() {{
	{need}
	use net dns logger
	after firewall net
}}

start_pre() {{
	checkpath -d -m 0755 {shlex.quote(options.run)}
	mkdir -p {shlex.quote(f"{options.root}/log")}
}}

reload() {{
	read -r pid _ <{shlex.quote(f"{options.run}/{verb}.pid")} && kill -HUP "$pid"
}}
"""
