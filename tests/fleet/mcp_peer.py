"""A tool server that misbehaves on demand. Every message that it gets is a line of the file that its first argument names."""

import json
import os
import subprocess
import sys
import time

log = open(sys.argv[1], "a", buffering=1)
mode = sys.argv[2] if len(sys.argv) > 2 else ""


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def tool(name, schema=None):
    return {"name": name, "description": "Does " + name, "inputSchema": schema or {"type": "object"}}


TOOLS = [
    tool("ping"), tool("hang"), tool("stall"), tool("flood"), tool("die"), tool("huge"), tool("large"),
    tool("ping"), tool("bad name"), tool("x" * 200), tool("ref", {"$ref": "https://schemas.example/x"}),
]


def call(number, name):
    text = name
    if name == "die":
        sys.stderr.write("the peer was told to die\n")
        sys.stderr.flush()
        os._exit(3)
    if name == "hang":
        return
    if name == "flood":
        # Requests without end, whose answers nobody reads.
        while True:
            sys.stdout.write('{"jsonrpc": "2.0", "id": "x", "method": "roots/list"}\n')
    if name == "stall":
        time.sleep(600)
    if name == "huge":
        text = "h" * (8 * 1024 * 1024)
    if name == "large":
        text = "l" * 100000
    say({"jsonrpc": "2.0", "id": number, "result": {"content": [{"type": "text", "text": text}]}})


log.write(json.dumps({"pid": os.getpid()}) + "\n")
if mode == "stubborn":
    # A process of its own that hears of nothing and ends by itself long after the test.
    child = subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL)
    log.write(json.dumps({"pid": child.pid}) + "\n")
if mode == "garbage":
    sys.stdout.write("Welcome!\n\x00\x01{]\n" + json.dumps({"jsonrpc": "2.0", "id": 77, "result": {}}) + "\n")
    sys.stdout.flush()
    time.sleep(600)

for line in sys.stdin:
    message = json.loads(line)
    log.write(line)
    method, number = message.get("method"), message.get("id")
    if method == "initialize":
        about = {"name": "peer", "version": "1"}
        version = message["params"]["protocolVersion"]
        say({"jsonrpc": "2.0", "id": number, "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}})
    elif method == "tools/list":
        say({"jsonrpc": "2.0", "id": number, "result": {"tools": TOOLS}})
    elif method == "tools/call":
        call(number, message["params"]["name"])
    elif method == "ping":
        say({"jsonrpc": "2.0", "id": number, "result": {}})

if mode == "stubborn":
    time.sleep(600)
