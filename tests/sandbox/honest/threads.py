"""Threads and a pool."""

import threading
from concurrent.futures import ThreadPoolExecutor


def test_threads():
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda x: x * x, range(100))) == 328350
    done = threading.Event()
    threading.Thread(target=done.set).start()
    assert done.wait(5)
