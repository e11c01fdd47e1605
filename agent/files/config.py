"""What of a container's wish goes into the configuration of an image made of it. Pure.

As `docker commit`: the image's own configuration, but for its triggers, with the user's words over it. Ports
and mounts that only tell of this container's place in the world stay behind, but for the ports it listens on
and its anonymous volumes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from msgspec.structs import replace

from agent.oci.process import workdir
from model.exposed import exposed
from model.image import ImageConfig
from model.spec import ContainerSpec, ExecProbe, HealthCheck, ShellProbe


def image_config(spec: ContainerSpec, image: ImageConfig) -> ImageConfig:
    """Raises InvalidInput for a working directory that no container could have."""
    entrypoint, cmd = image.entrypoint, image.cmd if spec.args is None else spec.args
    if spec.entrypoint is not None:
        entrypoint, cmd = spec.entrypoint, spec.args
    own = {f"{port.target}/{port.protocol}" for port in spec.ports}
    own |= {f"{number}/{protocol}" for text in spec.expose for number, protocol in exposed(text)}
    volumes = {posixpath.normpath(m.target) for m in spec.mounts if m.type == "volume" and not m.source}
    return replace(
        image,
        env=_environment(image.env, spec.env),
        entrypoint=entrypoint or None,
        cmd=cmd or None,
        user=spec.user or image.user,
        workdir=workdir(spec.workdir, image.workdir) if spec.workdir else image.workdir,
        volumes=tuple(sorted({*image.volumes, *volumes})),
        exposed_ports=tuple(sorted({*image.exposed_ports, *own})),
        labels={**image.labels, **spec.labels},
        stop_signal=spec.stop_signal or image.stop_signal,
        health=_health(spec.health, image.health),
        onbuild=(),
    )


def command(spec: ContainerSpec, image: ImageConfig) -> str:
    """What it runs, for the history."""
    made = image_config(spec, image)
    return " ".join((*(made.entrypoint or ()), *(made.cmd or ())))


def _environment(image: tuple[str, ...], own: Mapping[str, str]) -> tuple[str, ...]:
    """A later one replaces an earlier in its place."""
    pairs = dict(pair.partition("=")[::2] for pair in image)
    return tuple(f"{name}={value}" for name, value in {**pairs, **own}.items())


def _health(own: HealthCheck | None, image: HealthCheck | None) -> HealthCheck | None:
    """Probes of flota's own kinds can't be said in an image: the image keeps its word then."""
    if own is None:
        return image
    if own.disabled:
        return HealthCheck(disabled=True)
    if own.probe is not None and not isinstance(own.probe, ExecProbe | ShellProbe):
        return image
    base = image if image is not None and not image.disabled else HealthCheck()
    return HealthCheck(
        probe=own.probe or base.probe,
        interval=own.interval or base.interval,
        timeout=own.timeout or base.timeout,
        retries=own.retries or base.retries,
        start_period=own.start_period or base.start_period,
        start_interval=own.start_interval or base.start_interval,
    )
