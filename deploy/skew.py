"""What hosts of one fleet don't agree in: clocks, MTU of what joins them, releases. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from deploy.findings import CLOCK_WARNING, Finding, note, warning
from deploy.hostfacts import Facts
from model.spec import Struct


class Seen(Struct):
    name: str
    facts: Facts
    agent: str = ""
    """Release that its agent says it runs from; empty: nobody knows."""


def compare(hosts: Sequence[Seen], controller: str) -> Iterator[tuple[str, Finding]]:
    """(Where, what). `controller`: release that it says it runs from."""
    yield from _clocks(hosts)
    yield from _mtus(hosts)
    yield from _releases(hosts, controller)


def _clocks(hosts: Sequence[Seen]) -> Iterator[tuple[str, Finding]]:
    """The two that are furthest apart; less than what nobody can be sure of is nothing."""
    if len(hosts) < 2:
        return
    ordered = sorted(hosts, key=lambda h: h.facts.clock_off)
    first, last = ordered[0], ordered[-1]
    apart = last.facts.clock_off - first.facts.clock_off
    if apart - first.facts.clock_doubt - last.facts.clock_doubt > CLOCK_WARNING:
        words = f"{last.name}'s clock is {apart:.1f} s ahead of {first.name}'s"
        yield f"{first.name} - {last.name}", warning(words, "Let both follow a time server (chrony, ntp)")


def _mtus(hosts: Sequence[Seen]) -> Iterator[tuple[str, Finding]]:
    """Of the links that lead out."""
    by_mtu: dict[int, list[str]] = defaultdict(list)
    for host in hosts:
        mtu = next((a.mtu for a in host.facts.addresses if a.link == host.facts.default_link and a.mtu), 0)
        if mtu:
            by_mtu[mtu].append(host.name)
    if len(by_mtu) > 1:
        words = "; ".join(f"{mtu} on {', '.join(sorted(names)[:5])}" for mtu, names in sorted(by_mtu.items()))
        yield (
            "the hosts' links",
            note(f"they take packets of different sizes: {words}", "Networks go by the smallest way"),
        )


def _releases(hosts: Sequence[Seen], controller: str) -> Iterator[tuple[str, Finding]]:
    for host in hosts:
        its = controller if host.facts.controls and "controller" in host.facts.running else ""
        for daemon, runs in (("agent", host.agent), ("controller", its)):
            pinned = host.facts.pinned.get(daemon, host.facts.release)
            if runs and pinned and runs != pinned:
                words = f"its {daemon} runs {runs}, and is started from {pinned} the next time"
                yield host.name, warning(words, f"Finish it: flota host upgrade {host.name}")
    others = sorted(host.name for host in hosts if controller and host.agent and host.agent != controller)
    if others:
        words = f"the controller runs {controller}, the agents of {', '.join(others[:5])} another release"
        yield "the fleet", warning(words, "Finish it: flota host upgrade --all")
