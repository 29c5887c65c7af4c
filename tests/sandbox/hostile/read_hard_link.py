"""Pulls a private file into reach by a hard link."""

import os
import parameters


def test_attack():
    os.link(parameters.DIRECTORY + "/secret", parameters.DIRECTORY + "/copy")
    with open(parameters.DIRECTORY + "/copy") as secret:
        assert parameters.CANARY in secret.read()
