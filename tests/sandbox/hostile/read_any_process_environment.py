"""Searches every process that it can see for keys."""

import os
import parameters


def environments():
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/environ") as environment:
                yield environment.read()
        except OSError:
            pass


def test_attack():
    assert any(parameters.CANARY in text for text in environments())
