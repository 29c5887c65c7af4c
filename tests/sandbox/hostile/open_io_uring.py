"""Opens the kernel's other door for input and output."""

import ctypes


def test_attack():
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(425, 4, ctypes.create_string_buffer(120)) > 0, ctypes.get_errno()
