"""Replaces the report by a link to a secret, so that the reader shows it."""

import os
import sys
import parameters


def test_attack():
    report = next(word.split("=", 1)[1] for word in sys.argv if word.startswith("--junitxml="))
    os.unlink(report)
    os.symlink(parameters.DIRECTORY + "/secret", report)
    os._exit(0)
