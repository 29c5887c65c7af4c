"""Reads keys from its own environment."""

import os
import parameters


def test_attack():
    assert parameters.CANARY in os.environ.values()
