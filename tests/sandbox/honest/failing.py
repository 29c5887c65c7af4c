"""Honest code that is wrong."""


def test_good():
    assert 1 + 1 == 2


def test_wrong():
    assert 1 + 1 == 3
