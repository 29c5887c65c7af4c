"""Talks to a daemon through a socket without a file."""

import socket
import parameters


def test_attack():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect("\0" + parameters.ABSTRACT)
        connection.sendall(b"hello")
        assert connection.recv(100)
