"""Empties a file of the user without opening it."""

import os
import parameters


def test_attack():
    os.truncate(parameters.DIRECTORY + "/secret", 0)
