"""Sends secrets away in a datagram."""

import socket
import parameters


def test_attack():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(2)
        sender.sendto(parameters.CANARY.encode(), ("127.0.0.1", parameters.UDP))
        assert sender.recv(100)
