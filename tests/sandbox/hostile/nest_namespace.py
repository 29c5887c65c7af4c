"""Becomes root in a user namespace, which opens much of the kernel."""

import ctypes


def test_attack():
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x10000000) == 0, ctypes.get_errno()
