"""Looks for keys in the home directory, also through a relative path."""

import os
import parameters


def test_attack():
    up = "../" * 20
    for path in (parameters.HOME + "/.ssh/id_rsa", up + parameters.HOME.lstrip("/") + "/.ssh/id_rsa"):
        with open(path) as key:
            assert parameters.CANARY in key.read()
    assert os.listdir(parameters.HOME + "/.ssh")
