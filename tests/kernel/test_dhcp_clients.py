"""DHCP clients in network namespaces of their own, with dnsmasq as the site's server."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from model.errors import DeadlineExceeded
from net.dhcp.lease import CLIENT, LEASE, SCRIPT, USER
from net.dhcping import FOLDER, DhcpClients
from tests.support.dhcpserver import serving_dhcp
from tests.support.nicsite import ROUTER, Site, nic_site, run
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
FIRST, LAST = "198.18.9.100", "198.18.9.110"
MAC = "02:00:00:00:01:01"


@pytest.fixture
def namespace() -> Iterator[str]:
    """A container's, with a macvlan link `eth0` on the site's network."""
    name = f"hdc{os.getpid() % 100000}"
    with nic_site() as site:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", "mv0", "link", "eth1", "address", MAC, "type", "macvlan", "mode", "bridge")
        run("ip", "link", "set", "mv0", "netns", name, "name", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        try:
            yield f"/run/netns/{name}"
        finally:
            run("ip", "netns", "del", name)
        assert isinstance(site, Site)


@pytest.fixture
async def clients(tmp_path: Path) -> AsyncIterator[DhcpClients]:
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o711)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if str(folder) != "/tmp":
            folder.chmod(folder.stat().st_mode | 0o011)
    made = DhcpClients(run_dir)
    yield made
    await made.drop("flv1")
    await made.close()


@pytest.fixture
def router() -> str:
    return f"hnic{os.getpid() % 100000}"


async def test_an_endpoint_gets_a_lease_and_the_same_one_again(
    namespace: str, clients: DhcpClients, router: str, tmp_path: Path
) -> None:
    with serving_dhcp(router, "lan0", FIRST, LAST, tmp_path, router=ROUTER) as leases:
        clients.keep("flv1", namespace, "eth0", "web")
        lease = await clients.obtained("flv1")
        assert lease.address.startswith("198.18.9.1") and lease.router == ROUTER and lease.server == ROUTER
        await until(
            lambda: leases.exists() and f"{MAC} {lease.address} web" in leases.read_text(), deadline=20
        )
        pid = _pid(clients)
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{USER}" in status and "NoNewPrivs:\t1" in status
        assert "CapBnd:\t0000000000002400" in status  # NET_BIND_SERVICE, NET_RAW
        await clients.drop("flv1")
        assert not os.path.exists(f"/proc/{pid}")
        clients.keep("flv1", namespace, "eth0", "web")
        assert (await clients.obtained("flv1")).address == lease.address


async def test_a_client_that_dies_is_started_again_and_one_that_lives_is_adopted(
    namespace: str, clients: DhcpClients, router: str, tmp_path: Path
) -> None:
    with serving_dhcp(router, "lan0", FIRST, LAST, tmp_path):
        clients.keep("flv1", namespace, "eth0", "web")
        lease, first = await clients.obtained("flv1"), _pid(clients)
        os.kill(first, signal.SIGKILL)
        second = await until(lambda: pid if (pid := _pid(clients)) != first else 0, deadline=30)
        await clients.close()  # as an agent that ends
        other = DhcpClients(clients._run_dir)
        try:
            with open(clients._run_dir / FOLDER / "flv1" / SCRIPT, "rb") as script:
                other.keep("flv1", namespace, "eth0", "web")
                assert os.fstat(script.fileno()).st_nlink == 0, "it may be running"
            assert (await other.obtained("flv1")).address == lease.address
            assert _pid(clients) == second and os.path.exists(f"/proc/{second}")
        finally:
            await other.drop("flv1")
            await other.close()


async def test_what_the_server_takes_back_is_told(
    namespace: str, clients: DhcpClients, router: str, tmp_path: Path
) -> None:
    """Another server, with another range: a renewal is refused, and another address given."""
    told: list[str] = []
    clients.changed = told.append
    with serving_dhcp(router, "lan0", FIRST, LAST, tmp_path):
        clients.keep("flv1", namespace, "eth0", "web")
        lease = await clients.obtained("flv1")
        run("nsenter", f"--net={namespace}", "ip", "address", "add", f"{lease.address}/24", "dev", "eth0")
    (tmp_path / "leases").unlink()
    with serving_dhcp(router, "lan0", "198.18.9.200", "198.18.9.210", tmp_path):
        told.clear()
        os.kill(_pid(clients), signal.SIGUSR1)  # renew now
        after = await until(
            lambda: (
                found
                if (found := clients.lease("flv1")) and found.address not in ("", lease.address)
                else None
            ),
            deadline=60,
        )
    assert after.address.startswith("198.18.9.2") and "flv1" in told


async def test_no_server_is_an_error_in_words(namespace: str, clients: DhcpClients) -> None:
    clients.keep("flv1", namespace, "eth0", "web")
    with pytest.raises(DeadlineExceeded, match="no DHCP server gave an address within"):
        await clients.obtained("flv1", within=0.5)


async def test_a_lease_that_points_elsewhere_is_not_followed(
    namespace: str, clients: DhcpClients, tmp_path: Path
) -> None:
    clients.keep("flv1", namespace, "eth0", "web")
    secret = tmp_path / "secret"
    secret.write_text("event=bound\nip=192.0.2.1\n")
    (clients._folder / "flv1" / LEASE).symlink_to(secret)
    assert clients.lease("flv1") is None


def _pid(clients: DhcpClients) -> int:
    """0 while it is written."""
    words = (clients._folder / "flv1" / CLIENT).read_text().split()
    return int(words[0]) if words else 0
