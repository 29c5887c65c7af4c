"""Writes files that no directory shows."""

import os
import time


def test_attack():
    kept = []
    for number in range(20):
        large = open(f"large{number}", "wb")
        os.unlink(f"large{number}")
        large.write(b"x" * (10 << 20))
        large.flush()
        kept.append(large)
    time.sleep(60)
