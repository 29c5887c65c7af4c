"""Talks to a server on this machine, where NATS would be."""

import socket
import parameters


def test_attack():
    with socket.create_connection(("127.0.0.1", parameters.TCP), timeout=2) as connection:
        connection.sendall(parameters.CANARY.encode())
        assert connection.recv(100)
