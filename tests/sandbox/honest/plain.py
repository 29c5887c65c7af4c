"""The usual case: a module, its tests, a class, parameters, an expected failure and a skip."""

# file: calculator.py
def add(a, b):
    return a + b
# file: test_plain.py
import unittest

import pytest
from calculator import add


@pytest.fixture
def test_numbers():
    return 1, 2


@pytest.mark.parametrize("a, b, total", [(1, 2, 3), (0, 0, 0)])
def test_add(a, b, total):
    assert add(a, b) == total


class TestAdd:
    def test_negative(self, test_numbers):
        assert add(-1, 1) == 0


class Suite(unittest.TestCase):
    def test_unit(self):
        self.assertEqual(add(2, 2), 4)


@pytest.mark.skip(reason="later")
def test_later():
    assert False


@pytest.mark.xfail
def test_wish():
    assert False
