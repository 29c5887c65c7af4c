"""Reads the keyring of the user."""

import ctypes
import platform


def test_attack():
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 250}.get(platform.machine(), 219)
    assert libc.syscall(number, 0, -3, 1) > 0, ctypes.get_errno()
