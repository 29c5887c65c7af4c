"""Takes memory in many processes, each within its own limit."""

import os
import time


def test_attack():
    children = []
    for _ in range(5):
        child = os.fork()
        if child == 0:
            block = bytearray(b"x") * (100 << 20)
            time.sleep(60)
            os._exit(len(block) & 1)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
