"""Prints without end."""

import os


def test_attack():
    while True:
        os.write(1, b"flood " * 10_000)
        os.write(2, b"flood " * 10_000)
