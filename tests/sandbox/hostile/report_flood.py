"""Makes the report too large to read."""

import os
import sys


def test_attack():
    report = next(word.split("=", 1)[1] for word in sys.argv if word.startswith("--junitxml="))
    with open(report, "wb") as large:
        large.write(b"x" * (20 << 20))
    os._exit(0)
