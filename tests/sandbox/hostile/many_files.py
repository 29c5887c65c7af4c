"""Makes empty files without end; they cost memory of the kernel."""

import os
import time


def test_attack():
    for number in range(200_000):
        os.close(os.open(f"empty{number}", os.O_CREAT))
    time.sleep(60)
