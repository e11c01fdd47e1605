"""A build for a client of BuildKit: its Dockerfile fetched, a host found, the host's questions answered.

Invariant: a build ends with the first thing that goes wrong, in its client's words or ours; whatever it began
has ended when this returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from msgspec.structs import replace

from api.channels import Pipe
from api.docker.buildkit.asking import Asked, Source, logins
from api.docker.buildkit.filesync import files, folder
from api.docker.buildkit.front import Folder, Plan, ignored, registries_named
from api.docker.buildkit.sessions import BuildSession
from api.docker.builds.hosting import connected, known, messages, spread
from api.docker.errors import Refusal
from api.docker.route import Call
from model.build import (
    BuildPlace,
    BuildRequest,
    BuildWarning,
    Done,
    Failed,
    FromHost,
    Start,
    StepBegan,
    StepEnded,
    pack,
)
from model.errors import FlotaError, NotFound, Unavailable
from model.ignorefile import DEFAULT, names_for

FIRST = -2_000_000
"""Number of the first step that is ours; those of hosts are above."""
LATER_NAMES: Mapping[str, str] = {"Dockerfile": "dockerfile"}
Tell = Callable[[FromHost], Awaitable[None]]


class Wanted:
    """One build. `place`: what builds of the same things are known by; `given`: contexts beside the plan's
    folders; `ident`: by which it can be cancelled."""

    def __init__(
        self,
        call: Call,
        plan: Plan,
        session: BuildSession,
        tell: Tell,
        *,
        place: str,
        ident: str = "",
        given: Mapping[str, Source] | None = None,
    ) -> None:
        self._call = call
        self._plan = plan
        self._session = session
        self._tell = tell
        self._place = place
        self._ident = ident
        self._given = dict(given or {})
        self._steps = FIRST

    async def run(self) -> Done:
        """Raises how it failed."""
        plan = await self._with_dockerfile()
        sources = {**self._given, **{name: await self._source(one) for name, one in plan.folders.items()}}
        request = await self._with_logins(plan.request)
        node = self._call.node()
        wish = BuildPlace(host=node, context=self._place, platform=next(iter(request.platforms), ""))
        with self._call.port.place_build(wish) as (host, placed):
            async with connected(self._call.port, host) as pipe:
                with known(self._call, self._ident, pipe) as cancelled:
                    pipe.writer.write(pack(Start(request=request)))
                    last = await self._conversation(pipe, request, sources)
        if cancelled.is_set():
            raise Refusal(500, "the build was cancelled")
        if isinstance(last, Failed):
            raise last.error.to_error()
        if isinstance(last, Exception):
            raise last
        for name in request.names if not node and last.images else ():
            async for words in spread(self._call.port, name, last.host or placed.host):
                await self._tell(BuildWarning(code="NotEverywhere", message=words))
        return replace(last, names=request.names)

    # -- before it ----------------------------------------------------------------------------------
    async def _with_dockerfile(self) -> Plan:
        """The Dockerfile in the request, the ignore files' patterns at their folders. Raises NotFound."""
        plan, file = self._plan, self._plan.request.file
        own, common = names_for(file)
        text: bytes | None = None
        patterns: tuple[str, ...] | None = None
        if plan.dockerfile is not None:
            async with self._step(f"[internal] load build definition from {file}"):
                other = LATER_NAMES.get(file, "")
                found = await self._files(plan.dockerfile, *filter(None, (file, other, own)))
                text = found.get(file, found.get(other))
                if text is None:
                    raise NotFound(f"failed to read dockerfile: open {file}: no such file or directory")
                if own in found:
                    patterns = ignored(found[own], own)
        folders: dict[str, Folder] = {}
        for name, place in plan.folders.items():
            if name or patterns is None:
                async with self._step(f"[internal] load {DEFAULT}{f' of {name}' if name else ''}"):
                    text_of = (await self._files(place, common)).get(common)
                    folders[name] = replace(place, excludes=ignored(text_of, common))
            else:
                folders[name] = replace(place, excludes=patterns)
        request = plan.request if text is None else replace(plan.request, dockerfile=text)
        return replace(plan, request=request, folders=folders)

    async def _files(self, place: Folder, *paths: str) -> dict[str, bytes]:
        return await files(await self._session_of(place), place.name, paths)

    async def _source(self, place: Folder) -> Source:
        return partial(folder, await self._session_of(place), place.name, excludes=place.excludes)

    async def _session_of(self, place: Folder) -> BuildSession:
        if not place.session:
            return self._session
        return await self._call.state.build_sessions.get(place.session)

    async def _with_logins(self, request: BuildRequest) -> BuildRequest:
        references = [way.options.get("ref", "") for way in (*request.cache_from, *request.cache_to)]
        texts = [request.dockerfile, *(f" {value}".encode() for value in request.args.values())]
        asked = registries_named(b"\n".join(texts), *request.names, *references)
        return replace(request, logins={**await logins(self._session, asked), **request.logins})

    @asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[None]:
        self._steps += 1
        step, error = self._steps, "cancelled"
        await self._tell(StepBegan(step=step, name=name))
        try:
            yield
            error = ""
        except FlotaError as failed:
            error = str(failed)
            raise
        finally:
            await self._tell(StepEnded(step=step, error=error))

    # -- while it runs ------------------------------------------------------------------------------
    async def _conversation(
        self, pipe: Pipe, request: BuildRequest, sources: Mapping[str, Source]
    ) -> Done | Failed | Exception:
        """Its last word, or what went wrong."""
        wrong: list[Exception] = []
        async with asyncio.TaskGroup() as group:
            tasks: set[asyncio.Task[None]] = set()

            def start(answer: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
                task = group.create_task(_guarded(answer, wrong, pipe))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                return task

            asked = Asked(pipe, self._session, sources, request.outputs, start)
            try:
                last = await self._heard(pipe, asked)
                if isinstance(last, Done):
                    await asked.ended()
            except Exception as error:
                last = error
            for task in tasks:
                task.cancel()
        return wrong[0] if wrong and not isinstance(last, Failed) else last

    async def _heard(self, pipe: Pipe, asked: Asked) -> Done | Failed | Exception:
        async for message in messages(pipe):
            if isinstance(message, Done | Failed):
                return message
            if not asked.take(message):
                await self._tell(message)
        return Unavailable("the connection to the build broke")


async def _guarded(answer: Coroutine[Any, Any, None], wrong: list[Exception], pipe: Pipe) -> None:
    """An answer that fails ends the build."""
    try:
        await answer
    except Exception as error:
        wrong.append(error)
        pipe.writer.close()
