"""SQLite in memory and on disk."""

import sqlite3


def test_database(tmp_path):
    for place in (":memory:", tmp_path / "a.db"):
        with sqlite3.connect(place) as database:
            database.execute("create table a (b)")
            database.executemany("insert into a values (?)", [(n,) for n in range(100)])
            assert database.execute("select sum(b) from a").fetchone() == (4950,)
