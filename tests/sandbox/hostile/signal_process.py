"""Ends another process of the same user."""

import os
import signal
import parameters


def test_attack():
    os.kill(parameters.VICTIM, signal.SIGTERM)
