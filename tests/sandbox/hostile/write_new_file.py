"""Leaves a file with the user's own."""

import parameters


def test_attack():
    with open(parameters.DIRECTORY + "/.bashrc", "w") as new:
        new.write("changed")
