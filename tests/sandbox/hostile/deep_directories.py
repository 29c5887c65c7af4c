"""Leaves a tree that is too deep for path names and a directory without rights, to prevent tidying up."""

import os


def test_attack():
    os.mkdir("locked")
    os.close(os.open("locked/file", os.O_CREAT))
    locked = os.open("locked", os.O_RDONLY)
    os.fchmod(locked, 0)
    for _ in range(3000):
        os.mkdir("deeper")
        os.chdir("deeper")
    os.chdir("/")
