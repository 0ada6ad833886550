"""Ctrl-C and SIGTERM as a request that a loop answers between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_request() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one acts as if this were not there.

    Only the main thread may catch signals: in others the event stays unset and signals act as ever.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(*_):
        event.set()
        restore()

    before |= {number: signal.signal(number, request) for number in _SIGNALS}
    try:
        yield event
    finally:
        restore()
