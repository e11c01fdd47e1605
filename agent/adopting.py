"""What an agent makes, at its start, of a record that another left: its process is adopted, or over.

Invariant: whether a process was let go is asked of the runtime wherever the journal doesn't say it.
"""

from __future__ import annotations

from agent import freeze, lifecycle
from agent.actions import Actions
from agent.context import Context
from agent.probe import NONE
from agent.record import Local
from agent.runtime.base import State


async def adopted(context: Context, actions: Actions, record: Local) -> Local:
    """As its worker is to go on with it."""
    released = False
    here = record.live and record.boot_id == context.boot_id
    if here:
        await context.runtime.adopt(str(context.bundle(record.instance)))
        await freeze.thaw(context, record)
    elif record.rooted and not record.making:
        await context.images.unmount_root(record.instance)  # somebody may have looked into it
    if here and not record.started:
        state = await context.runtime.state(record.instance)
        let_go = state is not State.CREATED and actions.released(record)
        released = let_go or state in (State.RUNNING, State.PAUSED)
    want = context.wishes.get(record.instance)
    watch = actions.watch_of(record, want) if released and want is not None else NONE
    return lifecycle.recovered(
        record, boot_id=context.boot_id, released=released, now=context.clock.now(), watch=watch
    )
