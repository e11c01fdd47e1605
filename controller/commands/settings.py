"""Commands on the fleet's settings. Pure: each gives a Plan, or raises and changes nothing."""

from __future__ import annotations

from controller.plan import Plan, put
from controller.snapshot import Cluster
from model.api import UpdateSettings
from model.errors import InUse
from model.events import Event
from model.settingrules import changed, settings_problems
from model.validate import check


def update(cluster: Cluster, request: UpdateSettings, now: float) -> Plan:
    """Change what is given. Hosts rebuild their tunnels for another port; networks keep their numbers."""
    settings = cluster.settings
    wanted = changed(settings, request)
    check("invalid settings", settings_problems(wanted))
    if wanted == settings:
        return Plan()
    if wanted.vxlan_port != settings.vxlan_port:
        _refuse_published(cluster, wanted.vxlan_port)
    event = Event(type="fleet", action="update", id=settings.fleet_id, name=settings.name, at=now)
    return Plan(items=(put(wanted, "the fleet's settings were changed by hand"),), events=(event,))


def _refuse_published(cluster: Cluster, port: int) -> None:
    """Raises InUse: what comes for a published port never gets to a tunnel."""
    users = {f"container {i.name}": i.spec.ports for i in cluster.instances.values() if i.service is None}
    users |= {
        f"service {s.spec.name}": (*s.ingress, *s.spec.container.ports) for s in cluster.services.values()
    }
    for name, ports in sorted(users.items()):
        if any(p.protocol == "udp" and p.published == port for p in ports):
            raise InUse(f"port {port}/udp is published by {name}", hint="Choose another port for tunnels")
