"""Honest code that cannot even be read."""


def test_broken(:
    pass
