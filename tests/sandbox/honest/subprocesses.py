"""Child processes: a shell, its own program, a signal to a child."""

# file: program.py
import sys

print("hello", *sys.argv[1:])
# file: test_subprocesses.py
import subprocess
import sys


def test_program():
    done = subprocess.run([sys.executable, "program.py", "you"], capture_output=True, text=True, check=True)
    assert done.stdout == "hello you\n"
    assert subprocess.check_output("echo $((1 + 1))", shell=True) == b"2\n"


def test_terminate():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child.terminate()
    assert child.wait(10) == -15
