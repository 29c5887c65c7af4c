"""Fills the process table; bounded, in case it works."""

import os
import time


def test_attack():
    for _ in range(300):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    time.sleep(60)
