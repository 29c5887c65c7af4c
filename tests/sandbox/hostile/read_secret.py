"""Reads a private file of the user by its path."""

import parameters


def test_attack():
    with open(parameters.DIRECTORY + "/secret") as secret:
        assert parameters.CANARY in secret.read()
