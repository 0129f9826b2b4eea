#!/usr/bin/env python3
"""A Debian mirror for tests: passes requests on to the real one and keeps what it got. Prints its port.

    mirror.py FOLDER UPSTREAM      FOLDER/mode says how it behaves, asked at each request:
        pass          as a mirror
        silent N      after N more packages it takes connections and says no word
        cut N         after N more packages it breaks off in the middle of one, and then at once
/archive/NAME/TIME/... is /NAME/... as an archive of snapshots gives it.
"""

import http.server
import pathlib
import re
import sys
import threading
import time
import urllib.request

folder, upstream = pathlib.Path(sys.argv[1]), sys.argv[2].rstrip("/")
lock = threading.Lock()
given = {"mode": "", "packages": 0}


class Mirror(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def fault(self):
        """Which fault this request is to meet."""
        mode = (folder / "mode").read_text().strip()
        with lock:
            if given["mode"] != mode:
                given.update(mode=mode, packages=0)
            if mode == "pass":
                return None
            kind, limit = mode.split()
            if given["packages"] >= int(limit):
                return kind
            given["packages"] += self.path.endswith(".deb")
            return None

    def body(self):
        path = re.sub(r"^/archive/([^/]+)/[0-9]{8}T[0-9]{6}Z/", r"/\1/", self.path)
        kept = folder / "kept" / re.sub(r"[^A-Za-z0-9.+~-]", "_", path)
        if not kept.is_file():
            with urllib.request.urlopen(upstream + path.removeprefix("/debian"), timeout=60) as answer:
                data = answer.read()
            kept.parent.mkdir(exist_ok=True)
            part = kept.with_name(f"{kept.name}.{threading.get_ident()}")
            part.write_bytes(data)
            part.replace(kept)
        return kept.read_bytes()

    def do_GET(self):
        kind = self.fault()
        if kind == "silent":
            # The one who asked goes away first.
            time.sleep(600)
            return
        try:
            data = self.body()
        except OSError as error:
            self.send_error(getattr(error, "code", 502))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if kind == "cut" else data)
        self.close_connection = kind == "cut"


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
server.daemon_threads = True
print(server.server_port, flush=True)
server.serve_forever()
