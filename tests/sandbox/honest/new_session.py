"""A child in its own session, as careful programs start them."""

import subprocess
import sys


def test_session():
    assert subprocess.run([sys.executable, "-c", "pass"], start_new_session=True).returncode == 0
