"""Signals by which a run is asked to save or to stop."""

import signal
import threading
from types import FrameType
from typing import Any

_SAVE = getattr(signal, "SIGUSR1", None)  # Windows has none
_STOP = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Notes SIGUSR1 (save), SIGINT and SIGTERM (stop) as they arrive, from `listen` to `ignore`; they act at the end of
    a step. A second SIGINT ends the run at once.
    """

    def __init__(self) -> None:
        self._arrived: set[int] = set()
        self._handlers: dict[int, Any] = {}
        self.at_once = False
        """Whether there was a second SIGINT: nothing is saved any more."""

    def listen(self) -> None:
        """Takes the place of the handlers that are there. Only the main thread has signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (*_STOP, _SAVE):
                if number is not None:
                    self._handlers[number] = signal.signal(number, self._note)

    def ignore(self) -> None:
        """Puts the earlier handlers back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    @property
    def stop(self) -> bool:
        """Whether the run was asked to stop; it stays so."""
        return any(number in self._arrived for number in _STOP)

    def save(self) -> bool:
        """Whether a checkpoint was asked for since the last call; one is whenever the run was asked to stop."""
        asked = bool(self._arrived)
        self._arrived.discard(_SAVE)
        return asked

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._arrived:
            self.at_once = True
            raise KeyboardInterrupt
        self._arrived.add(number)
