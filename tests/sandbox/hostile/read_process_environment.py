"""Reads the keys of another process of the same user, where an API key would be."""

import parameters


def test_attack():
    with open(f"/proc/{parameters.VICTIM}/environ") as environment:
        assert parameters.CANARY in environment.read()
