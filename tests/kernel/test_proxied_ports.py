"""Published ports that tell the PROXY protocol, to HAProxy as another's implementation of it, through a real
network: from outside, from the host, from containers, while everything but the proxy is dead."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.ids import InstanceId
from model.spec import NetworkSpec, ProxyProtocol, Subnet
from model.status import BoundPort
from net.proxy.state import FOLDER
from net.supervise import drop
from net.supervise.files import SERVED, claim_of, prepare
from net.supervise.keep import stop
from tests.support.hostprocess import HostProcess
from tests.support.nethosts import OUTSIDE, NetHosts, address, inner4, inner6, ip, net_hosts, overlay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel

OPEN, SHUT = 1, 3
SPECS = {
    OPEN: overlay("one", 1, ipv6=True),
    SHUT: NetworkSpec(name="shut", driver="bridge", subnets=(Subnet(cidr="10.202.0.0/16"),), internal=True),
}
HAPROXY = """
global
  maxconn 100
defaults
  mode http
  timeout client 20s
  timeout server 20s
  timeout connect 5s
frontend f
  bind :8080 accept-proxy
  bind :::8080 v6only accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""
HOST, HOST6, OUTSIDE6 = address(1), "fd99::11", "fd99::1"


class ProxiedHost:
    """A host with the proxy's process in its namespace, and a container that runs HAProxy."""

    def __init__(self, hosts: NetHosts) -> None:
        self.hosts, self.host = hosts, hosts.hosts[1]
        self.folder = str(self.host.run_dir / FOLDER)
        self.processes: list[subprocess.Popen[bytes]] = []
        hosts.carry(SPECS)
        for netns, device, cidr in ((hosts.switch, "br0", OUTSIDE6), (self.host.netns, "eth0", HOST6)):
            ip("-n", netns, "address", "add", f"{cidr}/64", "dev", device, "nodad")
        self.server = hosts.container(1, 1, OPEN)
        self.start_proxy()

    def start_proxy(self) -> None:
        os.chmod(self.host.run_dir, 0o711)
        prepare(self.folder, drop.PROXY)
        self._spawn(f"/run/netns/{self.host.netns}", sys.executable, "-m", "net.proxy", self.folder)
        wait_until(lambda: claim_of(self.folder).pid == self.processes[-1].pid, deadline=30, what="a proxy")

    def start_haproxy(self, config: Path) -> None:
        config.write_text(HAPROXY)
        self._spawn(self._namespace(self.server), "haproxy", "-db", "-q", "-f", str(config))
        probe = ("sh", "-c", "test $(ss -ltn | grep -c :8080) = 2")
        wait_until(
            lambda: not self.host.inside(self.server, *probe, check=False).returncode,
            deadline=30,
            what="HAProxy",
        )

    def publish(self, header: ProxyProtocol = "v2", **more: object) -> None:
        port = BoundPort(target=8080, published=443, protocol="tcp", proxy_protocol=header, **more)  # type: ignore[arg-type]
        spec = SPECS[OPEN]
        self.hosts.publish(1, self.server, inner4(spec, 1, 1), port, ipv6=inner6(spec, 1, 1))

    def _namespace(self, instance: InstanceId) -> str:
        return str(self.host.run_dir / "ns" / instance)

    def _spawn(self, namespace: str, *argv: str) -> None:
        root = str(Path(__file__).resolve().parents[2])
        words = ["nsenter", f"--net={namespace}", *argv]
        self.processes.append(
            subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=root, start_new_session=True)
        )

    def close(self) -> None:
        if self.host.running:
            self.host.call("unpublish", self.server)
        asyncio.run(stop(self.folder))
        for process in self.processes:
            process.kill()
            process.wait(10)


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[ProxiedHost]:
    with net_hosts(1, "flpx") as hosts:
        made = ProxiedHost(hosts)
        try:
            made.start_haproxy(tmp_path / "haproxy.cfg")
            yield made
        finally:
            made.close()


def url(target: str) -> str:
    return f"http://[{target}]:443/" if ":" in target else f"http://{target}:443/"


def seen_from_outside(proxied: ProxiedHost, target: str) -> list[str]:
    """What HAProxy says of a client outside: source, its port, destination, its port."""
    done = proxied.hosts.outside("curl", "-sS", "--max-time", "5", url(target))
    return done.stdout.split()


def seen_by(host: HostProcess, instance: InstanceId | None, target: str) -> list[str]:
    """The same for a container, or the host itself; nothing when it gets no answer."""
    words = ("curl", "-sS", "--max-time", "5", url(target))
    done = host.inside(instance, *words, check=False) if instance else host.run(*words, check=False)
    return done.stdout.split()


@pytest.mark.parametrize("header", ["v1", "v2"])
def test_haproxy_learns_the_clients_address_from_everywhere(
    proxied: ProxiedHost, header: ProxyProtocol
) -> None:
    proxied.publish(header)
    four, six = seen_from_outside(proxied, HOST), seen_from_outside(proxied, HOST6)
    assert (four[0], *four[2:]) == (OUTSIDE, HOST, "443") and int(four[1]) > 1023
    assert (six[0], *six[2:]) == (OUTSIDE6, HOST6, "443")
    for target in (HOST, HOST6, "127.0.0.1", "::1"):
        own = seen_by(proxied.host, None, target)
        assert (own[0], own[2]) == (target, target), "the host itself"
    neighbour = proxied.hosts.container(1, 2, OPEN)
    for instance, index in ((proxied.server, 1), (neighbour, 2)):
        inner = inner4(SPECS[OPEN], 1, index)
        assert seen_by(proxied.host, instance, HOST)[0] == inner, "a container, the server itself too"


def test_port_is_closed_to_internal_networks_and_to_clients_not_listed(proxied: ProxiedHost) -> None:
    proxied.publish()
    shut = proxied.hosts.container(1, 3, SHUT)
    assert seen_by(proxied.host, None, HOST)
    assert not seen_by(proxied.host, shut, HOST)
    assert not seen_by(proxied.host, shut, "10.202.0.1")
    proxied.publish(allow=(f"{OUTSIDE}/32",))
    assert seen_from_outside(proxied, HOST)[0] == OUTSIDE
    assert not seen_by(proxied.host, None, HOST)


def test_port_of_a_program_is_refused_and_a_change_of_our_own_is_not(proxied: ProxiedHost) -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 443)); print('up', flush=True); s.accept()"
    argv = ["nsenter", f"--net=/run/netns/{proxied.host.netns}", sys.executable, "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None and program.stdout.readline() == b"up\n"
            with pytest.raises(RuntimeError, match="InUse: port 443/tcp is in use by another program"):
                proxied.publish()
        finally:
            program.kill()
    proxied.publish()
    proxied.publish("v1", allow=("0.0.0.0/0",))
    proxied.publish(host_ip=HOST)
    assert seen_from_outside(proxied, HOST)[0] == OUTSIDE
    assert not seen_by(proxied.host, None, "127.0.0.1")
    other = proxied.hosts.container(1, 2, OPEN)
    port = BoundPort(target=80, published=443, protocol="tcp")
    with pytest.raises(RuntimeError, match="InUse"):
        proxied.hosts.publish(1, other, inner4(SPECS[OPEN], 1, 2), port)
    proxied.host.call("unpublish", proxied.server)
    proxied.hosts.publish(1, other, inner4(SPECS[OPEN], 1, 2), port)


def test_nobody_listening_resets_the_client_at_once(proxied: ProxiedHost) -> None:
    proxied.publish()
    haproxy = proxied.processes[-1]
    haproxy.kill()
    haproxy.wait(10)
    took = ("-w", "%{time_total}")
    done = proxied.hosts.outside("curl", "-sS", "--max-time", "5", *took, url(HOST), check=False)
    assert done.returncode in (7, 56), "connecting or reading: reset"
    assert float(done.stdout) < 1


def test_port_is_served_while_the_network_code_and_its_tables_are_gone(proxied: ProxiedHost) -> None:
    proxied.publish()
    proxied.host.kill()
    assert seen_from_outside(proxied, HOST)[0] == OUTSIDE
    asyncio.run(stop(proxied.folder))
    proxied.processes[0].wait(10)
    proxied.start_proxy()
    wait_until(lambda: os.stat(f"{proxied.folder}/{SERVED}").st_size, deadline=5, what="a verdict")
    assert seen_from_outside(proxied, HOST6)[0] == OUTSIDE6


def test_proxy_holds_one_capability_and_a_user_of_its_own(proxied: ProxiedHost) -> None:
    proxied.publish()
    with open(f"/proc/{claim_of(proxied.folder).pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    assert status["Uid"].split() == status["Gid"].split() == [str(drop.PROXY)] * 4
    assert status["Groups"].strip() == "" and status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2", "a filter"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 1 << drop.CAP_NET_BIND_SERVICE
    assert int(status["VmRSS"].split()[0]) < 40_000
