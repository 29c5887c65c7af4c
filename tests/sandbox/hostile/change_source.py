"""Changes the sources that were handed in, beside the copy."""

import parameters


def test_attack():
    for source in ("/source", "../source"):
        try:
            with open(source + "/parameters.py", "a") as handed_in:
                handed_in.write("changed")
            return
        except FileNotFoundError:
            pass
    raise FileNotFoundError
