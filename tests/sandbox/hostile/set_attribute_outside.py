"""Hangs an extended attribute on a file of the user."""

import os
import parameters


def test_attack():
    os.setxattr(parameters.DIRECTORY + "/secret", "user.oarlock", b"changed")
