"""The words that make a host's daemons others: stopped and started by its own `flota`, which knows
systemd. Pure.

Invariant: a store is copied only while no controller runs on it, and what is put back is that copy, whole.
The copy of the last upgrade is kept: `store.before-RELEASE`, beside the store.
"""

from __future__ import annotations

from deploy.releases import ROOT
from deploy.upgradeplan import Daemon

STATE = "/var/lib/flota/controller"
FLOTA = f"{ROOT}/current/bin/flota"

_RESTART = r"""set -e
"$1" down --only "$2" >&2
[ -z "$3" ] || sh -c "$4" sh "$5" "$3"
exec "$1" "$2" --detach"""
"""flota, daemon, release for whose sake the store is copied first (or nothing), KEEP, folder of the state."""

_KEEP = r"""set -e
cd "$1"
[ -e store.db ] || exit 0
[ "$(cat store.upgrading/to 2>/dev/null)" != "$2" ] || exit 0
rm -rf store.copying
mkdir -m 700 store.copying
for file in store.db store.db-wal; do [ ! -e "$file" ] || cp -p "$file" store.copying/; done
echo "$2" >store.copying/to
sync
rm -rf store.upgrading
mv store.copying store.upgrading"""
"""A run that was cut after this has its copy already: the one of before the first attempt is the good one."""

_PUT_BACK = r"""set -e
"$1" down --only controller >&2
cd "$2"
[ "$(cat store.upgrading/to 2>/dev/null)" = "$3" ] || exit 0
[ -e store.upgrading/store.db ] || exit 0
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
"""flota, folder of the state, release that is left: the copy of another upgrade is not this one's. What that
release stored is kept in store.left."""

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

_LAST_WORDS = r"""tail -n 5 "/var/lib/flota/log/$1.log" 2>/dev/null ||
  journalctl -q -n 5 -o cat -u "flota-$1" 2>/dev/null"""


def restart(daemon: Daemon, *, copy_for: str = "", flota: str = FLOTA, state: str = STATE) -> tuple[str, ...]:
    """Stop it, and start it from the current release. Ends once it answers on its socket, or badly with what
    it said. `copy_for`: the store is copied in between, for the sake of that release."""
    return ("sh", "-c", _RESTART, "sh", flota, daemon, copy_for, _KEEP, state)


def put_back(left: str, *, flota: str = FLOTA, state: str = STATE) -> tuple[str, ...]:
    """Stop the controller, and make its store again what it was before the upgrade to `left` that is under
    way; says `put back` where there is one."""
    return ("sh", "-c", _PUT_BACK, "sh", flota, state, left)


def in_place(*, flota: str = FLOTA, state: str = STATE) -> tuple[str, ...]:
    """Have the release that is current again restore what was put back: agents obey no store that is older
    than what they heard, and are asked for what they were told since."""
    return ("sh", "-c", _IN_PLACE, "sh", flota, state)


def upgraded(before: str, *, state: str = STATE) -> tuple[str, ...]:
    """The copy has done its work: it is kept under the name of the release that it is of."""
    return ("sh", "-c", _DONE, "sh", state, before or "upgrade")


def last_words(daemon: Daemon) -> tuple[str, ...]:
    """Of its log."""
    return ("sh", "-c", _LAST_WORDS, "sh", daemon)
