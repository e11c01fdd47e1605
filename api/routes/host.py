"""Routes of one host's own API: acts on its containers, images and volumes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from api import sessions
from api.filters import filter_volumes
from api.hijack import require
from api.imagefilters import filter_images, image_chooser
from api.routes import query as q
from api.routes.images import upload_of
from api.routes.query import percent
from api.routes.route import HostCall
from api.streaming import TAR, frames, lines, octets
from model.api import (
    CreateVolume,
    FoundImage,
    ImageInfo,
    ImageRemoved,
    InstanceInfo,
    ProcessTable,
    VolumeInfo,
)
from model.blobs import CopyImage
from model.containerfiles import CommitRequest, PathStat
from model.disk import HostDisk
from model.doctor import HostCheck
from model.health import HealthLog
from model.image import Progress
from model.leases import HostLeases
from model.own import OwnAct
from model.remoteimages import PushedIndex, PushIndex, RemoteImage
from model.status import HostFacts
from model.streams import PROTOCOL, ExecSpec


async def info(call: HostCall) -> HostFacts:
    return call.port.facts()


async def doctor(call: HostCall) -> HostCheck:
    return await call.port.examine_networks()


async def leases(call: HostCall) -> HostLeases:
    return call.port.leases()


async def act_on_own(call: HostCall) -> InstanceInfo:
    return await call.port.act_on_own(call.ref(), call.body_as(OwnAct))


async def kill(call: HostCall) -> None:
    await call.port.kill(call.ref(), call.query_as(q.Kill).signal)


async def attach(call: HostCall) -> web.StreamResponse:
    require(call.request, PROTOCOL)
    query = call.query_as(q.Attach)
    session = await call.port.attach(call.ref(), stdin=query.stdin, logs=query.logs, attempt=query.attempt)
    return await sessions.serve(call.request, session)


async def exec_(call: HostCall) -> web.StreamResponse:
    require(call.request, PROTOCOL)
    session = await call.port.exec(call.ref(), call.body_as(ExecSpec))
    return await sessions.serve(call.request, session)


async def logs(call: HostCall) -> web.StreamResponse:
    query = call.query_as(q.Logs)
    source = call.port.logs(
        call.ref(),
        follow=query.follow,
        tail=query.tail,
        since=query.since,
        until=query.until,
        timestamps=query.timestamps,
        stdout=query.stdout,
        stderr=query.stderr,
    )
    return await frames(call.request, source)


async def stats(call: HostCall) -> web.StreamResponse:
    query = call.query_as(q.Stats)
    return await lines(call.request, call.port.stats(query.ref, stream=query.stream))


async def top(call: HostCall) -> ProcessTable:
    return await call.port.top(call.ref())


async def health(call: HostCall) -> HealthLog:
    return call.port.health(call.ref())


async def path_stat(call: HostCall) -> PathStat:
    return await call.port.path_stat(call.ref(), call.query_as(q.AtPath).path)


async def archive(call: HostCall) -> web.StreamResponse:
    return await frames(call.request, call.port.archive(call.ref(), call.query_as(q.AtPath).path))


async def extract(call: HostCall) -> web.StreamResponse:
    require(call.request, PROTOCOL)
    query = call.query_as(q.Extract)
    session = await call.port.extract(call.ref(), query.path, replace=query.replace)
    return await sessions.serve(call.request, session)


async def export(call: HostCall) -> web.StreamResponse:
    return await frames(call.request, call.port.export(call.ref()))


async def changes(call: HostCall) -> web.StreamResponse:
    return await lines(call.request, call.port.changes(call.ref()))


async def commit(call: HostCall) -> web.StreamResponse:
    return await lines(call.request, call.port.commit(call.ref(), call.body_as(CommitRequest)))


async def list_images(call: HostCall) -> list[ImageInfo]:
    return filter_images(call.port.list_images(), call.query_as(q.ListImages).filter)


async def get_image(call: HostCall) -> ImageInfo:
    return call.port.get_image(call.ref(), call.query_as(q.OfPlatform).platform)


async def pull(call: HostCall) -> web.StreamResponse:
    query = call.query_as(q.Pull)
    pulling = call.port.pull_image(query.ref, query.platform, call.login(), all_platforms=query.all)
    return await lines(call.request, pulling)


async def copy(call: HostCall) -> web.StreamResponse:
    return await lines(call.request, call.port.copy_image(call.body_as(CopyImage)))


async def push(call: HostCall) -> web.StreamResponse:
    query = call.query_as(q.Push)
    pushing = call.port.push_image(
        query.ref, call.login(), platform=query.platform, referrers=query.referrers
    )
    return await lines(call.request, pushing)


async def push_index(call: HostCall) -> PushedIndex:
    return await call.port.push_index(call.query_as(q.PushIndex).ref, call.body_as(PushIndex), call.login())


async def save(call: HostCall) -> web.StreamResponse:
    query = call.query_as(q.Save)
    return await octets(call.request, call.port.save_images(query.ref, query.platform), TAR)


async def distribution(call: HostCall) -> RemoteImage:
    query = call.query_as(q.Distribution)
    return await call.port.remote_image(query.ref, call.login(), config=query.config, near=query.near)


async def check_login(call: HostCall) -> None:
    await call.port.check_login(call.query_as(q.Registry).registry, call.login())


async def tags(call: HostCall) -> list[str]:
    return list(await call.port.remote_tags(call.query_as(q.Distribution).ref, call.login()))


async def search(call: HostCall) -> list[FoundImage]:
    query = call.query_as(q.Search)
    return list(await call.port.search_images(query.term, query.limit, call.login()))


async def load(call: HostCall) -> web.StreamResponse:
    platform = call.query_as(q.OfPlatform).platform
    return await lines(call.request, call.port.load_images(upload_of(call.request), platform))


async def import_(call: HostCall) -> web.StreamResponse:
    query = call.query_as(q.Import)

    async def run() -> AsyncIterator[Progress]:
        chunks = upload_of(call.request)
        record = await call.port.import_image(
            chunks, ref=query.ref, message=query.message, changes=query.change, platform=query.platform
        )
        yield Progress(status="imported", image=record.id)

    return await lines(call.request, run())


async def tag(call: HostCall) -> ImageInfo:
    return await call.port.tag_image(call.ref(), call.query_as(q.Tag).name)


async def remove_image(call: HostCall) -> ImageRemoved:
    query = call.query_as(q.RemoveImage)
    return await call.port.remove_image(call.ref(), force=query.force, platform=query.platform)


async def prune_images(call: HostCall) -> ImageRemoved:
    query = call.query_as(q.PruneImages)
    return await call.port.prune_images(all_unused=query.all, chosen=image_chooser(query.filter))


async def make_room(call: HostCall) -> ImageRemoved:
    return await call.port.make_room(percent(call.query_as(q.MakeRoom).to))


async def disk_use(call: HostCall) -> HostDisk:
    return await call.port.disk_use()


async def written(call: HostCall) -> dict[str, int]:
    return dict(await call.port.written(call.query_as(q.Written).ref))


async def list_volumes(call: HostCall) -> list[VolumeInfo]:
    return filter_volumes(call.port.list_volumes(), call.query_as(q.ListVolumes).filter)


async def get_volume(call: HostCall) -> VolumeInfo:
    return call.port.get_volume(call.ref())


async def create_volume(call: HostCall) -> VolumeInfo:
    return await call.port.create_volume(call.body_as(CreateVolume))


async def remove_volume(call: HostCall) -> dict[str, str]:
    await call.port.remove_volume(call.ref(), force=call.query_as(q.RemoveVolume).force)
    return {}


async def prune_volumes(call: HostCall) -> dict[str, int]:
    return dict(await call.port.prune_volumes(all_unused=call.query_as(q.Prune).all))
