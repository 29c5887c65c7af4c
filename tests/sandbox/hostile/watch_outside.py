"""Spies on the names of private files."""

import ctypes
import parameters


def test_attack():
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_add_watch(libc.inotify_init(), parameters.DIRECTORY.encode(), 0x100)
    assert watch > 0, ctypes.get_errno()
