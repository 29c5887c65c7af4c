"""Hides the failing test through the project's own options."""

# file: pytest.ini
[pytest]
addopts = -k good --junitxml=/dev/null
# file: test_hidden_by_options.py


def test_good():
    pass


def test_failing():
    assert False
