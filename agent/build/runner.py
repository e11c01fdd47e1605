"""The StepRunner of one build: its RUN steps in containers here, its file steps by whoever copies.

Invariant: nothing that a build holds of the host (namespaces, addresses) outlives it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Collection, Sequence
from types import TracebackType
from typing import Protocol

from agent.build.executor import Executor, Task
from agent.build.networks import Networks
from agent.build.process import Bundle
from agent.build.shell import converse
from agent.build.spec import check_allowed, shell_of
from image.build.base import Bound, Chosen, Session, Source
from image.build.step import CopyStep, RunStep, WorkdirStep
from model.build import StepSaid
from model.errors import Exhausted, FlotaError, Internal
from model.ids import IdSource
from model.quantity import format_bytes


def _trouble(error: OSError) -> FlotaError:
    """What this host could not give a step."""
    words = f"RUN can't be prepared on this host: {error.filename or 'its files'}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Exhausted(words, hint="Make room there, for example with `flota builder prune`")
    return Internal(words)


class FileSteps(Protocol):
    """As of `image.build.base.StepRunner`."""

    async def choose(self, step: CopyStep, sources: Sequence[Source]) -> Chosen: ...

    async def copy(self, root: str, step: CopyStep, sources: Sequence[Source]) -> None: ...

    async def workdir(self, root: str, step: WorkdirStep) -> bool: ...


class Runner:
    """`allow`: what the build was given beyond what a container may (`BuildRequest.allow`). To be entered
    before its first step and left after its last."""

    def __init__(
        self, executor: Executor, files: FileSteps, *, allow: Collection[str], new_id: IdSource
    ) -> None:
        self._executor = executor
        self._files = files
        self._allow = frozenset(allow)
        self._new_id = new_id
        self._networks = Networks(executor.context, new_id)

    async def __aenter__(self) -> Runner:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._networks.close()

    # -- RUN ----------------------------------------------------------------------------------------
    async def run(
        self, root: str, step: RunStep, bound: Sequence[Bound | None], session: Session, number: int
    ) -> int:
        """As `StepRunner.run`. Raises Forbidden for what needs an entitlement."""
        check_allowed(step, self._allow)
        task = Task(ident=self._new_id(), root=root, step=step, bound=tuple(bound), number=number)

        def heard(data: bytes, stderr: bool) -> None:
            session.tell(StepSaid(step=number, data=data, stderr=stderr))

        async with self._bundle(task, session) as bundle:
            ended = await self._executor.processes.run(bundle, heard)
        if ended.oom:
            limit = format_bytes(step.resources.memory)
            heard(f"[out of memory: a process was killed at the limit of {limit}]\n".encode(), True)
        return ended.code

    async def shell(
        self, root: str, step: RunStep, bound: Sequence[Bound | None], session: Session, number: int
    ) -> int:
        """As `StepRunner.shell`."""
        check_allowed(step, self._allow)
        task = Task(
            ident=self._new_id(),
            root=root,
            step=step,
            bound=tuple(bound),
            number=number,
            args=shell_of(step.args),
            tty=True,
        )
        async with self._bundle(task, session) as bundle:
            return await converse(self._executor.processes, bundle, session, number)

    @contextlib.asynccontextmanager
    async def _bundle(self, task: Task, session: Session) -> AsyncIterator[Bundle]:
        step = task.step
        try:
            async with (
                self._networks.lease(step.network, again=not step.insecure) as space,
                self._executor.bundle(task, space, session) as bundle,
            ):
                yield bundle
        except ConnectionError:  # the client's
            raise
        except OSError as error:
            raise _trouble(error) from error

    # -- files --------------------------------------------------------------------------------------
    async def choose(self, step: CopyStep, sources: Sequence[Source]) -> Chosen:
        return await self._files.choose(step, sources)

    async def copy(self, root: str, step: CopyStep, sources: Sequence[Source]) -> None:
        await self._files.copy(root, step, sources)

    async def workdir(self, root: str, step: WorkdirStep) -> bool:
        return await self._files.workdir(root, step)
