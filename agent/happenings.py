"""What happens on this host, as events. Nothing here decides or does anything."""

from __future__ import annotations

from collections.abc import Mapping

from agent.context import Context
from agent.record import Local
from image.reference import familiar
from model.events import Event, EventType
from model.events import of_container as attributes_of
from model.image import ImageRecord
from model.records import Instance
from model.status import Endpoint, Stranger
from net.host import Drift


def of_container(context: Context, record: Local, want: Instance | None, action: str) -> Event:
    """`action` is Docker's word."""
    more = {}
    if action == "die":
        more["exitCode"] = "" if record.exit_code is None else str(record.exit_code)
    attributes = attributes_of(want.spec.labels, want.spec.image, **more) if want is not None else more
    name = want.name if want is not None else ""
    return _event(context, "container", action, record.instance, name, attributes)


def of_endpoint(
    context: Context, record: Local, want: Instance | None, endpoint: Endpoint, action: str
) -> Event:
    """A container came on a network or left it."""
    attributes = {"container": record.instance, "name": endpoint.network_name, "type": "bridge"}
    network = context.view.networks.get(endpoint.network)
    if network is not None:
        attributes["type"] = network.spec.driver
    if want is not None:
        attributes["containerName"] = want.name
    return _event(context, "network", action, endpoint.network, endpoint.network_name, attributes)


def of_drift(context: Context, drift: Drift) -> Event:
    """Something of ours in the kernel was not as it should be, and was put right."""
    attributes = {"object": drift.object, "action": drift.action}
    return _event(context, "network", "repair", context.host, drift.object, attributes)


def of_stranger(context: Context, stranger: Stranger) -> Event:
    """Somebody on the site's network has an address that was ours to give."""
    network = context.view.networks.get(stranger.network)
    name = network.spec.name if network is not None else ""
    attributes = {"address": stranger.address, "mac": stranger.mac}
    return _event(context, "network", "address-taken", stranger.network, name, attributes)


def of_image(context: Context, action: str, image: ImageRecord, reason: str = "") -> Event:
    """Something became of an image here; `reason` where nobody said it by hand."""
    name = familiar(image.names[0]) if image.names else ""
    return _event(context, "image", action, image.id, name, {"reason": reason} if reason else {})


def _event(
    context: Context, type_: EventType, action: str, ident: str, name: str, attributes: Mapping[str, str]
) -> Event:
    return Event(
        type=type_,
        action=action,
        id=ident,
        name=name,
        host=context.facts.hostname,
        at=context.clock.now(),
        attributes=attributes,
    )
