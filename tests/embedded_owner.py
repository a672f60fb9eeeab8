"""A process that owns an embedded Postgres, for tests to watch and to kill.

    python embedded_owner.py FOLDER [--fork]

Prints one JSON line {url, socket_url, owner} when the server answers, then waits for its standard input to end, stops
the server and prints "stopped". With --fork it first leaves a forked child behind that holds everything open.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from tasks.embedded import EmbeddedPostgres, EmbeddedPostgresError


def main() -> None:
    postgres = EmbeddedPostgres(Path(sys.argv[1]), durable=False)
    try:
        postgres.start()
    except EmbeddedPostgresError as error:
        print(json.dumps({"code": error.code, "message": error.message}), flush=True)
        return
    child = fork_a_holder() if "--fork" in sys.argv else None
    told = {"url": postgres.url, "socket_url": postgres.socket_url, "owner": postgres.owner, "child": child}
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    postgres.stop()
    print("stopped", flush=True)


def fork_a_holder() -> int:
    child = os.fork()
    if child == 0:
        os.close(0)
        os.close(1)
        signal.pause()
    return child


if __name__ == "__main__":
    main()
