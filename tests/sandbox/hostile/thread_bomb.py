"""Fills the process table with threads; bounded, in case it works."""

import threading


def test_attack():
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait, daemon=True) for _ in range(300)]
    try:
        for thread in threads:
            thread.start()
        stop.wait(60)
    finally:
        stop.set()
