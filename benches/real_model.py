#!/usr/bin/env python3
"""What a real model makes of simple goals: the table of docs/real-model.md.

    benches/real_model.py --base-url http://127.0.0.1:18080/v1
    benches/real_model.py --goals 3 --model ollama/qwen2.5-coder

Each goal is one `oarlock run` on a private fleet that is started for the table and stopped after it. Every cell is read from
what the run stored (`oarlock show --json`). Options that this script does not know go to `oarlock up`; the fleet takes its
limits from the environment as always (a slow model wants OARLOCK_TIMEOUT_S). Standard library only.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

GOALS = [
    "Write a function to calculate fibonacci",
    "Write a function that returns the greatest common divisor of two integers",
    "Write a function that tells whether a text is a palindrome, ignoring case, spaces and punctuation",
    "Write functions that convert integers from 1 to 3999 to Roman numerals and back",
    "Write a function that counts how often each word occurs in a text, ignoring case",
    "Write a function that flattens a nested list",
    "Write a function that tells whether a number is prime",
    "Write functions that encrypt and decrypt a text with a Caesar cipher",
    "Write a function that tells whether a year is a leap year",
    "Write a binary search that returns the index of an item in a sorted list, or -1",
]
READY_S_MAX = 120
STOP_S_MAX = 60
KILLED_S_MAX = 10
EXIT_TIMEOUT = 7
WORDS_CHARS_MAX = 160


def main():
    options, up = arguments()
    tool = os.path.abspath(options.oarlock) if os.sep in options.oarlock else options.oarlock
    folder = options.keep or tempfile.mkdtemp(prefix="oarlock-real-model-")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "fleet.log")
    # The fleet is stopped on every way out. A SIGTERM waits until there is a fleet to stop, and a `try` that stops it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it was told to stop"))
    with open(path, "wb") as log:
        fleet = start(tool, folder, up, log)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        ready(fleet, path)
        rows = []
        print("| goal | plan valid at attempt | pytest passed at attempt | calls | tokens in / out | time | outcome |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for goal in GOALS[: options.goals]:
            rows.append(row(tool, folder, goal, options.goal_s))
            print(f"| {' | '.join(rows[-1]['cells'])} |", flush=True)
        count = {what: sum(row[what] for row in rows) for what in ("planned", "passed", "completed")}
        print(f"\nOf {len(rows)} goals: {count['planned']} valid plans, {count['passed']} passed pytest, {count['completed']} completed.")
    finally:
        stop(fleet)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--oarlock", default="oarlock", help="the tool, if not the one on PATH")
    parser.add_argument("--goals", type=int, default=len(GOALS), help="the first so many goals (default: all)")
    parser.add_argument("--goal-s", type=int, default=1800, help="seconds after which a goal is canceled")
    parser.add_argument("--keep", metavar="DIR", help="keep the fleet's store and the files in this folder, to look into them")
    return parser.parse_known_args()


def start(tool, folder, up, log):
    """A fleet of its own, in a session of its own, whose store is in the folder; what it says goes to the log."""
    command = [tool, "up", *up]
    # The fleet hears the signals that wait here.
    unblock = lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    none = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=folder, stdin=none, stdout=none, stderr=log, start_new_session=True, preexec_fn=unblock)


def ready(fleet, path):
    """Waits until the fleet says that it is ready."""
    until = time.monotonic() + READY_S_MAX
    while True:
        # Before its log is read: what it said at its end is then in it.
        ended = fleet.poll()
        with open(path, encoding="utf-8", errors="replace") as log:
            said = log.read()
        if ended is not None:
            sys.exit(f"the fleet ended by itself, with code {ended}; it said:\n{said}")
        if any(line.startswith("ready") for line in said.splitlines()):
            return
        if time.monotonic() >= until:
            sys.exit(f"the fleet is not ready after {READY_S_MAX} s; it said:\n{said}")
        time.sleep(0.1)


def stop(fleet):
    """Ends the fleet, by force when it does not go; a second SIGTERM does not end the wait."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if fleet.poll() is not None:
        return
    fleet.terminate()
    try:
        fleet.wait(STOP_S_MAX)
    except BaseException as error:
        # Its workers and its server end with it.
        fleet.kill()
        fleet.wait(KILLED_S_MAX)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        print(f"the fleet did not end within {STOP_S_MAX} s and was killed", file=sys.stderr)


def row(tool, folder, goal, goal_s):
    """One goal, from its sending to its end, and what the store says of it then."""

    def ask(*words):
        return subprocess.run([tool, *words], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    began = time.monotonic()
    ended = ask("run", "--json", "--timeout", str(goal_s), goal)
    took_s = time.monotonic() - began
    run = next((line[4:].strip() for line in ended.stderr.splitlines() if line.startswith("run ")), None)
    if run is None:
        sys.exit(f"no run came of {goal!r}:\n{ended.stderr}")
    if ended.returncode == EXIT_TIMEOUT:
        ask("cancel", run)
    view = json.loads(ask("show", "--json", run).stdout)
    return told(view, took_s)


def told(view, took_s):
    """The cells of a row, and what counts in the sum."""
    tasks, usage = view["tasks"], view["usage"]
    plan = next(task for task in tasks if task["id"] == "plan")
    checks = [task for task in tasks if task["role"] == "qa"]
    planned = plan["status"] == "completed"
    passed = bool(checks) and all(task.get("passed") for task in checks)
    completed = view["status"] == "completed"
    roles = ", ".join(task["role"] for task in tasks if task["id"] not in ("plan", "answer"))
    words = " ".join((view.get("failure") or {}).get("message", view["status"]).split())
    words = words if len(words) <= WORDS_CHARS_MAX else words[:WORDS_CHARS_MAX] + "…"
    # What the server did not count is an estimate, and looks like one.
    about = "≈ " if usage.get("estimated") else ""
    cells = [
        view["goal"],
        f"{plan['attempt']}: {roles}" if planned else "no",
        str(max(task["attempt"] for task in checks)) if passed else "no",
        str(usage["calls"]),
        f"{about}{usage['input']} / {about}{usage['output']}",
        f"{took_s:.0f} s",
        words.replace("|", "\\|"),
    ]
    return {"cells": cells, "planned": planned, "passed": passed, "completed": completed}


if __name__ == "__main__":
    main()
