"""Writes one file that is too large."""


def test_attack():
    with open("large", "wb") as large:
        for _ in range(200):
            large.write(b"x" * (1 << 20))
