"""A server of its own on the loopback, found by name."""

import http.server
import threading
import urllib.request


def test_server():
    server = http.server.HTTPServer(("localhost", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with urllib.request.urlopen(f"http://localhost:{server.server_port}/", timeout=5) as answer:
        assert answer.status == 200
    server.shutdown()
