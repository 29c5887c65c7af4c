"""Talks to a daemon through its socket file, as to Docker."""

import socket
import parameters


def test_attack():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(parameters.DIRECTORY + "/stream.sock")
        connection.sendall(b"hello")
        assert connection.recv(100)
