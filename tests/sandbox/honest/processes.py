"""A pool of processes."""

import multiprocessing


def square(x):
    return x * x


def test_pool():
    with multiprocessing.Pool(2) as pool:
        assert pool.map(square, range(10))[-1] == 81
