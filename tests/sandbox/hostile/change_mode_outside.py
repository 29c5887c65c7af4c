"""Opens a private file of the user to everyone."""

import os
import parameters


def test_attack():
    path = parameters.DIRECTORY + "/secret"
    os.chmod(path, 0o666)
    os.utime(path, (1, 1))
    assert os.stat(path).st_mode & 0o777 == 0o666
