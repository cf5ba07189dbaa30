"""A web server on this machine, for tests of downloads."""

import functools
import http.server
import threading
from contextlib import contextmanager

import torch


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder, hub, monkeypatch, kind=QuietHandler):
    """The address at which a folder is served; downloads go below ``hub``."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(hub))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = functools.partial(kind, directory=folder)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
