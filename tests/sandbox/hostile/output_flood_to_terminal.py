"""Prints without end past pytest's capture, and sends commands to a terminal."""

import os

TERMINAL = "\x1b]0;owned\x07\x1b[2J\x1b[31m\u202e"


def test_attack(capfd):
    with capfd.disabled():
        for _ in range(100):
            os.write(1, TERMINAL.encode())
        while True:
            os.write(1, b"flood " * 10_000)
