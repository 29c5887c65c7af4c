"""Never ends, and uses the processor."""


def test_attack():
    while True:
        pass
