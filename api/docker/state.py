"""What the Docker API remembers between two requests: execs, the streams of those attached, configurations of
images. Nothing of it outlives the process, and all of it is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from aio.supervisor import Supervisor
from api.docker.buildkit.sessions import BuildSessions
from api.docker.buildkit.uploads import Uploads
from api.docker.execs import Execs
from api.docker.sessions import Sessions
from model.image import ImageRecord

T = TypeVar("T")
MOST_IMAGES = 512


class Kept(Generic[T]):
    """The values that were used last, by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: str, value: T) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)


class State:
    """Of one served endpoint. `tasks` are what goes on behind a reply; closed with the application."""

    def __init__(self, origin: Literal["fleet", "host"] = "fleet") -> None:
        self.origin = origin
        """Whose containers are its own to prune."""
        self.tasks = Supervisor("docker")
        self.execs = Execs()
        self.sessions = Sessions()
        self.builds: dict[str, Callable[[], None]] = {}
        """By the id that a client gave it: what ends a build that runs."""
        self.build_sessions = BuildSessions()
        self.build_uploads = Uploads()
        self.images: Kept[ImageRecord] = Kept(MOST_IMAGES)
        """By id: an image never changes."""

    async def close(self) -> None:
        await self.tasks.close()
