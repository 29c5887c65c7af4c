"""Leaves with a good exit code before any test."""

# file: conftest.py
import sys

sys.exit(0)
# file: test_exit_in_conftest.py


def test_failing():
    assert False
