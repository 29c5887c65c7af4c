"""Changes a file of the user."""

import parameters


def test_attack():
    with open(parameters.DIRECTORY + "/secret", "a") as secret:
        secret.write("changed")
