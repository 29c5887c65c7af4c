"""Reads a private file through a link in the workspace."""

import os
import parameters


def test_attack():
    os.symlink(parameters.DIRECTORY + "/secret", "innocent.txt")
    with open("innocent.txt") as secret:
        assert parameters.CANARY in secret.read()
