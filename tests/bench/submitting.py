"""A process that submits jobs for one contender: all at once over several threads, or paced.

Usage: python -m bench.submitting CONTENDER SHAPE COUNT THREADS [--every SECONDS] [--together N] [--width ITEMS]
Prints one JSON object: `sent`, marks with the monotonic ns at which their submission began, when paced; `cpu_s`, what
submitting cost this process, without its start.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import uuid
from collections.abc import Callable

from bench.contenders import CONTENDERS

Submit = Callable[[str], None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("shape")
    parser.add_argument("count", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("--every", type=float, default=0.0)
    parser.add_argument("--together", type=int, default=1)
    parser.add_argument("--width", type=int, default=0)
    wanted = parser.parse_args()
    contender = CONTENDERS[wanted.contender]
    with contender.submitter(wanted.shape, wanted.width) as submit:
        began = time.process_time()
        if wanted.every:
            sent = pace(submit, wanted.count, wanted.every, wanted.together)
        else:
            sent = hurry(submit, wanted.count, wanted.threads)
        cpu_s = time.process_time() - began
    print(json.dumps({"sent": sent, "cpu_s": cpu_s}))


def pace(submit: Submit, count: int, every_s: float, together: int) -> dict[str, int]:
    """Submit `together` jobs back to back, every so often. Waits a whole interval first, for the caller to settle."""
    sent = {}
    due = time.monotonic()
    for _ in range(count // together):
        due += every_s
        time.sleep(max(0.0, due - time.monotonic()))
        for _ in range(together):
            mark = uuid.uuid4().hex
            sent[mark] = time.monotonic_ns()
            submit(mark)
    return sent


def hurry(submit: Submit, count: int, threads: int) -> dict[str, int]:
    """Submit as fast as it goes."""
    failed: list[BaseException] = []

    def submit_share(share: int) -> None:
        try:
            for _ in range(share):
                submit(uuid.uuid4().hex)
        except BaseException as error:
            failed.append(error)
            raise

    shares = [count // threads + (number < count % threads) for number in range(threads)]
    workers = [threading.Thread(target=submit_share, args=(share,)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    return {}


if __name__ == "__main__":
    main()
