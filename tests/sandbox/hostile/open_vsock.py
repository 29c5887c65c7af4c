"""Opens a socket to the hypervisor, which network namespaces do not stop."""

import socket


def test_attack():
    socket.socket(40, socket.SOCK_STREAM).close()
