"""Reads a private file through the root directory of another process."""

import parameters


def test_attack():
    with open(f"/proc/{parameters.VICTIM}/root{parameters.DIRECTORY}/secret") as secret:
        assert parameters.CANARY in secret.read()
