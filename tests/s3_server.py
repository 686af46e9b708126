"""An S3 server on loopback for one test run: it prints its address and ends with its input."""

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

_application = DomainDispatcherApplication(create_backend_app)
_one_at_a_time = threading.Lock()


def _answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    # moto looks for the key, then writes it: two requests at once with If-None-Match would both succeed, which S3 rules out
    with _one_at_a_time:
        return _application(environ, start_response)


def main() -> None:
    """Serves until the standard input is closed."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, _answer, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("http://{}:{}".format(*server.server_address[:2]), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
