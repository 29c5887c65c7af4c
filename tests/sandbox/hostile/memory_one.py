"""Takes too much memory at once."""


def test_attack():
    block = bytearray(2 << 30)
    assert block[-1] == 0
