"""Uses processor time in short-lived processes, each within its own limit."""

import os


def test_attack():
    while True:
        child = os.fork()
        if child == 0:
            sum(range(10_000_000))
            os._exit(0)
        os.waitpid(child, 0)
