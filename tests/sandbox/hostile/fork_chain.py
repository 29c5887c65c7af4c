"""Never stands still: each process forks the next and dies, to slip through a killer that looks for it."""

import ctypes
import os
import time
import parameters


def test_attack():
    ctypes.CDLL(None).prctl(15, parameters.CANARY.encode())
    if os.fork() == 0:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
        os._exit(0)
