"""Starts a daemon that keeps the output open, so that a careless reader waits for ever."""

import subprocess
import sys
import parameters


def test_attack(capfd):
    with capfd.disabled():
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", parameters.CANARY])
