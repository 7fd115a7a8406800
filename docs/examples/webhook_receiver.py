"""
Receives the events that qmp-monitor posts, and takes none that it did not sign.

    python webhook_receiver.py KEYFILE [PORT]

It needs nothing but Python. The file holds the key that the daemon signs with: "whsec_" and base64.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import sys
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


TOLERANCE = 300  # seconds that a post may be old, or our clock be wrong
LARGEST = 2 << 20  # bytes
REMEMBERED = 10_000  # ids

with open(sys.argv[1], encoding="ascii") as file:
    KEY = base64.b64decode(file.read().strip().removeprefix("whsec_"))

seen: OrderedDict[str, None] = OrderedDict()


def is_genuine(headers, body: bytes) -> bool:
    """Whether a post is signed with our key, and not long ago (Standard Webhooks)."""
    id, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent.isdecimal() or abs(time.time() - int(sent)) > TOLERANCE:
        return False
    mac = hmac.new(KEY, f"{id}.{sent}.".encode() + body, hashlib.sha256).digest()
    ours = "v1," + base64.b64encode(mac).decode()
    # While keys change there are several.
    found = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(ours.encode(), each.encode()) for each in found)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            self.close_connection = True
            self.answer(413)
            return
        body = self.rfile.read(int(length))
        if not is_genuine(self.headers, body):
            self.answer(401)
            return
        event = json.loads(body)
        # At least once: one whose answer got lost comes again, with the same id.
        if event["id"] not in seen:
            print(event["time"], event["subject"], event["type"], flush=True)
            seen[event["id"]] = None
            if len(seen) > REMEMBERED:
                seen.popitem(last=False)
        self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


port = int(sys.argv[2]) if len(sys.argv) > 2 else 8080
with ThreadingHTTPServer(("127.0.0.1", port), Receiver) as server:
    print("listening on port", server.server_port, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
