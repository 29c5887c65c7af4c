"""The event loop, with a child process."""

import asyncio
import sys


async def work():
    await asyncio.gather(*(asyncio.sleep(0.01) for _ in range(10)))
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(42)", stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    return int(out)


def test_loop():
    assert asyncio.run(work()) == 42
