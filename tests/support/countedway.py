"""A way to a registry that counts what comes by it, and lets no more through than so many bytes a second.

    python -m tests.support.countedway PORT HOST PORT RATE FILE

Listens on loopback, where registries are spoken to without TLS; FILE holds the number of bytes so far.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

BLOCK = 1 << 16


class Way:
    def __init__(self, host: str, port: int, rate: int, file: str) -> None:
        self._host, self._port, self._rate = host, port, rate
        self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._count = 0
        self._free = 0.0
        os.pwrite(self._fd, b"0".rjust(20), 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            there, back = await asyncio.open_connection(self._host, self._port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, back, counted=False))
                group.create_task(self._copy(there, writer, counted=True))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: bool) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(BLOCK):
                if counted:
                    self._count += len(data)
                    os.pwrite(self._fd, str(self._count).encode().rjust(20), 0)
                    self._free = max(self._free, loop.time()) + len(data) / self._rate
                    await asyncio.sleep(self._free - loop.time())
                writer.write(data)
                await writer.drain()
        writer.close()


async def main(port: str, host: str, target: str, rate: str, file: str) -> None:
    way = Way(host, int(target), int(rate), file)
    server = await asyncio.start_server(way.serve, "127.0.0.1", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
