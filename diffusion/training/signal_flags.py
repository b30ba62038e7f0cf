"""Signals that request a checkpoint or a stop."""

import signal
import threading
from types import FrameType
from typing import Any

_SAVE = getattr(signal, "SIGUSR1", None)  # Windows has none
_STOP = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Records SIGUSR1 (save), SIGINT and SIGTERM (stop) between `listen` and `ignore`; they take effect at the end of a
    step. A second SIGINT ends the run at once.
    """

    def __init__(self) -> None:
        self._arrived: set[int] = set()
        self._handlers: dict[int, Any] = {}
        self.at_once = False
        """Whether a second SIGINT arrived, after which nothing is saved."""

    def listen(self) -> None:
        """Replaces the signal handlers. Does nothing outside the main thread, which alone can set them."""
        if threading.current_thread() is threading.main_thread():
            for number in (*_STOP, _SAVE):
                if number is not None:
                    self._handlers[number] = signal.signal(number, self._note)

    def ignore(self) -> None:
        """Restores the earlier handlers."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    @property
    def stop(self) -> bool:
        """Whether a stop was requested; never reset."""
        return any(number in self._arrived for number in _STOP)

    def save(self) -> bool:
        """Whether a checkpoint was requested since the last call; always true once a stop was requested."""
        asked = bool(self._arrived)
        self._arrived.discard(_SAVE)
        return asked

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._arrived:
            self.at_once = True
            raise KeyboardInterrupt
        self._arrived.add(number)
