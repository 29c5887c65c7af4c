"""Changes a file of the user through a link in the workspace."""

import os
import parameters


def test_attack():
    os.symlink(parameters.DIRECTORY, "innocent")
    with open("innocent/secret", "w") as secret:
        secret.write("changed")
