"""One host's services in the namespace that this program is in; told line by line, it prints seconds.

`program COUNT` from nothing, `change` one of them. The values are made before the clock starts: that is the
controller's work.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time

from bench.rulesets import service, services
from net.kernel.linux import LinuxKernel
from net.servicechains import Frame
from net.serving import Serving

FRAME = Frame(ranges=("10.127.0.0/16",))


async def main() -> None:
    kernel = LinuxKernel()
    await kernel.start(lambda: None)
    serving = Serving(kernel)
    generation = 0
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        verb, *count = line.split()
        if verb == "program":
            await serving.remove()
        generation += verb == "change"
        wanted = {} if verb == "change" else services(int(count[0]))
        changed = {"s7": service(7, generation % 100)}
        gc.collect()
        began = time.perf_counter()
        if verb == "change":
            await serving.change(changed)
        else:
            await serving.apply(wanted, FRAME)
        print(time.perf_counter() - began, flush=True)
    await serving.remove()
    await kernel.close()


if __name__ == "__main__":
    asyncio.run(main())
