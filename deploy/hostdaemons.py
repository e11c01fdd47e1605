"""The words that make a host's daemons others: stopped and started by the `flota` of the release that each
is to run, which knows systemd. Pure.

Invariant: a store is copied only while no controller runs on it, and what is put back is that copy, whole;
nothing is put back over a store that a command has changed (`store.upgrading/confirmed`, which the controller
of a release on trial makes before the first). The copy of the last upgrade is kept: `store.before-RELEASE`,
beside the store.
"""

from __future__ import annotations

import msgspec

from deploy.releases import ROOT, Aim
from deploy.upgradeplan import Daemon

STATE = "/var/lib/flota/controller"
TAKEN, PUT_BACK = "taken", "put back"
"""What `put_back` says: the store has changed since by commands, and stays; it is what it was before."""


def flota(daemon: Daemon) -> str:
    """Of the release that this daemon is to run."""
    return f"{ROOT}/{daemon}/bin/flota"


_RESTART = r"""set -e
"$1" down --only "$2" >&2
[ -z "$3" ] || sh -c "$4" sh "$5" "$3"
exec "$1" "$2" --detach"""
"""flota, daemon, release for whose sake the store is copied first (or nothing), KEEP, folder of the state."""

_KEEP = r"""set -e
cd "$1"
[ -e store.db ] || exit 0
[ "$(cat store.upgrading/to 2>/dev/null)" != "$2" ] || [ -e store.upgrading/confirmed ] || exit 0
rm -rf store.copying
mkdir -m 700 store.copying
for file in store.db store.db-wal; do [ ! -e "$file" ] || cp -p "$file" store.copying/; done
echo "$2" >store.copying/to
sync
rm -rf store.upgrading
mv store.copying store.upgrading"""
"""A run that was cut after this has its copy already: the one of before the first attempt is the good one,
until commands were taken."""

_PUT_BACK = r"""set -e
[ -x "$1" ] || exit 0
"$1" down --only controller >&2
cd "$2"
[ "$(cat store.upgrading/to 2>/dev/null)" = "$3" ] || exit 0
[ -e store.upgrading/store.db ] || exit 0
[ ! -e store.upgrading/confirmed ] || { echo taken; exit 0; }
rm -rf store.left
mkdir -m 700 store.left
for file in store.db store.db-wal; do [ ! -e "$file" ] || ln "$file" store.left/; done
cp -p store.upgrading/store.db store.putting
[ ! -e store.upgrading/store.db-wal ] || cp -p store.upgrading/store.db-wal store.putting-wal
sync
rm -f store.db-wal store.db-shm
mv store.putting store.db
[ ! -e store.putting-wal ] || mv store.putting-wal store.db-wal
sync
rm -rf store.upgrading
echo put back"""
"""flota (a controller that has none of its own was not moved yet), folder of the state, release that is left:
the copy of another upgrade is not this one's. What that release stored is kept in store.left."""

_IN_PLACE = r"""set -e
"$1" restore --help 2>/dev/null | grep -q -e --in-place || exit 0
exec "$1" restore --in-place --root "${2%/*}" """
"""flota, folder of the state. A flota without that word has agents that need none."""

_DONE = r"""set -e
cd "$1"
[ -e store.upgrading ] || exit 0
rm -rf store.before-*
mv store.upgrading "store.before-$2"
sync"""

_BEGIN = r"""set -e
cd "$1"
printf '%s\n' "$2" >upgrade.json.new
sync
mv upgrade.json.new upgrade.json
sync"""

_END = r"""set -e
cd "$1"
[ -e upgrade.json ] || exit 0
rm upgrade.json
sync"""

_LAST_WORDS = r"""tail -n 5 "/var/lib/flota/log/$1.log" 2>/dev/null ||
  journalctl -q -n 5 -o cat -u "flota-$1" 2>/dev/null"""


def restart(daemon: Daemon, *, copy_for: str = "", program: str = "", state: str = STATE) -> tuple[str, ...]:
    """Stop it, and start it from its release. Ends once it answers on its socket, or badly with what it said.
    `copy_for`: the store is copied in between, for the sake of that release. `program`: instead of its own
    flota."""
    return ("sh", "-c", _RESTART, "sh", program or flota(daemon), daemon, copy_for, _KEEP, state)


def put_back(left: str, *, program: str = "", state: str = STATE) -> tuple[str, ...]:
    """Stop the controller, and make its store again what it was before the upgrade to `left` that is under
    way; says `PUT_BACK` where there is one, `TAKEN` where that would lose what commands have stored."""
    return ("sh", "-c", _PUT_BACK, "sh", program or flota("controller"), state, left)


def in_place(*, program: str = "", state: str = STATE) -> tuple[str, ...]:
    """Have the release that the controller is started from again restore what was put back: agents obey no
    store that is older than what they heard, and are asked for what they were told since."""
    return ("sh", "-c", _IN_PLACE, "sh", program or flota("controller"), state)


def begin(aim: Aim, *, root: str = ROOT) -> tuple[str, ...]:
    """Where a run goes is on the host's disk before its first change."""
    return ("sh", "-c", _BEGIN, "sh", root, msgspec.json.encode(aim).decode())


def end(*, root: str = ROOT) -> tuple[str, ...]:
    """It is over, well or not."""
    return ("sh", "-c", _END, "sh", root)


def upgraded(before: str, *, state: str = STATE) -> tuple[str, ...]:
    """The copy has done its work: it is kept under the name of the release that it is of."""
    return ("sh", "-c", _DONE, "sh", state, before or "upgrade")


def last_words(daemon: Daemon) -> tuple[str, ...]:
    """Of its log."""
    return ("sh", "-c", _LAST_WORDS, "sh", daemon)
