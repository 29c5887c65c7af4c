"""Reads a private file that somebody left open for it."""

import os
import parameters


def contents():
    for descriptor in range(3, 256):
        try:
            yield os.pread(descriptor, 100, 0)
        except OSError:
            pass


def test_attack():
    assert parameters.CANARY.encode() in contents()
