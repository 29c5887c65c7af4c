"""Deletes and renames files of the user."""

import os
import parameters


def test_attack():
    os.rename(parameters.DIRECTORY + "/secret", parameters.DIRECTORY + "/moved")
    os.unlink(parameters.DIRECTORY + "/moved")
