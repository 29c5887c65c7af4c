"""Starts a daemon that outlives the run: double fork, new session, output closed."""

import os
import sys
import parameters


def test_attack():
    if os.fork() == 0:
        try:
            os.setsid()
        except PermissionError:
            pass
        if os.fork() == 0:
            os.closerange(0, 100)
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", parameters.CANARY])
        os._exit(0)
