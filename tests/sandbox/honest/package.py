"""Several modules in a package, with shared fixtures, a source directory and a configuration."""

# file: pyproject.toml
[tool.pytest.ini_options]
pythonpath = ["src"]
addopts = "--cov=shop"
# file: src/shop/__init__.py
from shop.cart import Cart
# file: src/shop/cart.py
class Cart:
    def __init__(self):
        self.items = []

    def total(self):
        return sum(self.items)
# file: tests/conftest.py
import pytest
from shop import Cart


@pytest.fixture
def cart():
    return Cart()
# file: tests/unit/test_cart.py
def test_total(cart):
    cart.items += [1, 2]
    assert cart.total() == 3
# file: tests/unit/test_empty.py
def test_empty(cart):
    assert cart.total() == 0
