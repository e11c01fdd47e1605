"""What `POST /volumes/create` takes. Pure. Source: Docker Engine API 1.51, "VolumeCreateOptions"."""

from __future__ import annotations

from collections.abc import Mapping

from api.docker.bodies import Body, Docker
from api.docker.fields import Field, Table, partly, refused


class VolumeBody(Docker):
    name: str = ""
    driver: str = ""
    labels: Mapping[str, str] = {}


CREATE_TABLE: Table = (
    Field("Name"),
    partly("Driver", "local"),
    refused("DriverOpts", "a directory of the hosts' is mounted by a bind"),
    Field("Labels"),
    refused("ClusterVolumeSpec", "flota has nothing like it"),
)
CREATE = Body(VolumeBody, CREATE_TABLE)
