"""Writes many files that are too large together, then rests on them."""

import time


def test_attack():
    for number in range(20):
        with open(f"large{number}", "wb") as large:
            large.write(b"x" * (10 << 20))
    time.sleep(60)
