"""Holds no test at all."""


def helper():
    return 1
