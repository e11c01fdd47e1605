"""Programs on a rig's guests, by OpenSSH's client over one kept connection to each.

Every call has a deadline, and a guest that stopped answering ends the connection by itself within seconds. A
connection outlives neither a guest's power loss nor its way back in time: `forget` it then.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.rig.programs import checked

OPTIONS = (
    "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=30",
    "ServerAliveInterval=5", "ServerAliveCountMax=6", "ControlMaster=auto", "ControlPersist=600",
    "BatchMode=yes", "IdentitiesOnly=yes",
)  # fmt: skip


class GuestShell:
    """`enter`: the words that put a program where guests can be reached. `folder` keeps the connections'
    sockets."""

    def __init__(self, *, enter: Sequence[str], key: Path, folder: Path, user: str = "root") -> None:
        self._enter = tuple(enter)
        self._key = key
        self._folder = folder
        self._user = user

    def words(self, address: str, *options: str) -> list[str]:
        """Of a client, up to the program's."""
        fixed = [word for option in OPTIONS for word in ("-o", option)]
        path = f"ControlPath={self._folder}/ssh-%h"
        return [
            *self._enter, "ssh", "-F", "none", "-i", str(self._key), *fixed, "-o", path, *options,
            f"{self._user}@{address}", "--",
        ]  # fmt: skip

    def exec(
        self,
        address: str,
        argv: Sequence[str],
        *,
        timeout: float,
        check: bool,
        stdin: bytes | None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Raises subprocess.TimeoutExpired, and RuntimeError with the output unless `check` is off. 255 is
        also what the client ends with that doesn't reach the guest."""
        done = subprocess.run(
            [*self.words(address), self.remote(argv, env)],
            capture_output=True,
            timeout=timeout,
            input=stdin if stdin is not None else b"",
            check=False,
        )
        return checked(done) if check else done

    def spawn(self, address: str, argv: Sequence[str], *, log: str) -> subprocess.Popen[bytes]:
        """With a terminal there, whose end takes the program with it."""
        with open(log, "ab") as output:
            return subprocess.Popen(
                [*self.words(address, "-tt"), self.remote(argv, None)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def put(self, address: str, source: str, target: str) -> None:
        with open(source, "rb") as file:
            words = [*self.words(address), f"cat >{shlex.quote(target)}"]
            checked(subprocess.run(words, stdin=file, capture_output=True, check=False, timeout=300))

    @staticmethod
    def remote(argv: Sequence[str], env: Mapping[str, str] | None) -> str:
        settings = [f"{name}={value}" for name, value in (env or {}).items()]
        return shlex.join(["env", *settings, *argv] if settings else argv)

    def forget(self, address: str) -> None:
        """End the kept connection, if one stands."""
        subprocess.run(
            [*self.words(address, "-O", "exit")[:-1]], capture_output=True, timeout=20, check=False
        )
        (self._folder / f"ssh-{address}").unlink(missing_ok=True)

    def wait(self, address: str, deadline: float) -> None:
        """Until the guest runs programs. Raises RuntimeError with what the client last said."""
        end = time.monotonic() + deadline
        while True:
            late = time.monotonic() > end
            said = "no answer"
            try:
                done = self.exec(address, ["true"], timeout=20, check=False, stdin=None)
                if done.returncode == 0:
                    return
                said = done.stderr.decode(errors="replace").strip()
            except subprocess.TimeoutExpired:
                self.forget(address)
            if late:
                raise RuntimeError(f"{address} runs no program by SSH after {deadline:g} s: {said}")
            time.sleep(0.2)


def in_namespace(name: str) -> list[str]:
    """The words that put a program into a network namespace; unlike `ip netns exec` they leave /sys alone."""
    return ["nsenter", f"--net={os.path.join('/run/netns', name)}", "--"]
