"""Fails, then leaves with a good exit code before anyone writes that down."""

import atexit
import os

atexit.register(os._exit, 0)


def test_failing():
    assert False


def test_leaving():
    os._exit(0)
