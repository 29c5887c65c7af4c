"""Sends a datagram to a daemon from one end of a connected pair, as to the system log."""

import socket
import parameters


def test_attack():
    ours, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.sendmsg([b"hello"], [], 0, parameters.DIRECTORY + "/datagram.sock")
