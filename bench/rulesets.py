"""Services as kube-proxy writes them for nft and for iptables (its shapes, shortened): the peers' rulesets.

Per service a chain and per member another, which is how both of its modes work; one port per service. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from net.loadbalance import ServiceMember, VirtualService

MEMBERS = 2


def services(count: int) -> dict[str, VirtualService]:
    """So many, of two members each."""
    return {f"s{n}": service(n) for n in range(count)}


def service(number: int, generation: int = 0) -> VirtualService:
    """Another `generation` has other members."""
    places = (number * MEMBERS + i for i in range(MEMBERS))
    members = tuple(ServiceMember(ipv4=f"10.{128 + generation}.{at >> 8}.{at & 255}") for at in places)
    return VirtualService(ipv4=f"10.127.{number >> 8}.{number & 255}", members=members, method="random")


def nft(count: int) -> str:
    """The whole table, for `nft -f`."""
    head = """table ip peer {
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
  }
  chain mark-it {
    mark set mark or 0x4000
  }
  chain services {
    ip daddr . meta l4proto . th dport vmap @service-ips
  }
  chain prerouting {
    type nat hook prerouting priority -100
    jump services
  }
  chain output {
    type nat hook output priority -100
    jump services
  }
"""
    chains = "".join(line for n in range(count) for line in _nft_chains(n, 0))
    elements = ", ".join(f"{service(n).ipv4} . tcp . 80 : goto service-{n}" for n in range(count))
    return f"{head}{chains}}}\nadd element ip peer service-ips {{ {elements} }}\n"


def nft_change(number: int, generation: int) -> str:
    """One service with other members: its own chains, as a partial sync."""
    lines = []
    for i in range(MEMBERS):
        lines += [f"add chain ip peer endpoint-{number}-{i}-{generation}"]
    for i, member in enumerate(service(number, generation).members):
        chain = f"ip peer endpoint-{number}-{i}-{generation}"
        lines += [
            f"add rule {chain} ip saddr {member.ipv4} jump mark-it",
            f"add rule {chain} meta l4proto tcp dnat to {member.ipv4}:80",
        ]
    targets = ", ".join(f"{i} : goto endpoint-{number}-{i}-{generation}" for i in range(MEMBERS))
    lines += [
        f"flush chain ip peer service-{number}",
        f"add rule ip peer service-{number} numgen random mod {MEMBERS} vmap {{ {targets} }}",
    ]
    lines += [f"delete chain ip peer endpoint-{number}-{i}-{generation - 1}" for i in range(MEMBERS)]
    return "\n".join(lines) + "\n"


def _nft_chains(number: int, generation: int) -> Iterator[str]:
    for i, member in enumerate(service(number, generation).members):
        yield (
            f"  chain endpoint-{number}-{i}-{generation} {{\n    ip saddr {member.ipv4} jump mark-it\n"
            f"    meta l4proto tcp dnat to {member.ipv4}:80\n  }}\n"
        )
    targets = ", ".join(f"{i} : goto endpoint-{number}-{i}-{generation}" for i in range(MEMBERS))
    yield f"  chain service-{number} {{\n    numgen random mod {MEMBERS} vmap {{ {targets} }}\n  }}\n"


def iptables(count: int) -> str:
    """The whole nat table, for `iptables-restore`."""
    return _restore(range(count), range(count), 0)


def iptables_change(count: int, number: int, generation: int) -> str:
    """One service with other members, for `iptables-restore --noflush`: its own chains, and the chain that
    all services share, which is always written whole."""
    return _restore(range(count), (number,), generation)


def _restore(listed: Sequence[int], written: Sequence[int], generation: int) -> str:
    chains, rules = [":SERVICES - [0:0]"], []
    for n in written:
        chains.append(f":SVC-{n} - [0:0]")
        for i, member in enumerate(service(n, generation).members):
            chains.append(f":SEP-{n}-{i} - [0:0]")
            chance = f"-m statistic --mode random --probability {1 / (MEMBERS - i):.10f} "
            rules.append(f"-A SVC-{n} {chance if i < MEMBERS - 1 else ''}-j SEP-{n}-{i}")
            rules.append(f"-A SEP-{n}-{i} -s {member.ipv4}/32 -j MARK --set-xmark 0x4000/0x4000")
            rules.append(f"-A SEP-{n}-{i} -p tcp -m tcp -j DNAT --to-destination {member.ipv4}:80")
    shared = [f"-A SERVICES -d {service(n).ipv4}/32 -p tcp -m tcp --dport 80 -j SVC-{n}" for n in listed]
    jumps = ["-A PREROUTING -j SERVICES", "-A OUTPUT -j SERVICES"] if len(written) == len(listed) else []
    return "\n".join(["*nat", *chains, *jumps, *shared, *rules, "COMMIT", ""])
