"""Prints the progress that the workflows log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGER = "nnunet_cil"


class _Printer(logging.Handler):
    """Prints each message, and nothing else of the record, to what ``sys.stdout`` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message at once, also into a pipe. Errors of the pipe are the caller's."""
        print(self.format(record), flush=True)


@contextmanager
def printed_progress() -> Iterator[None]:
    """Prints what the package logs, as long as a command runs. Who uses the package without it sees nothing."""
    logger = logging.getLogger(_LOGGER)
    if any(isinstance(handler, _Printer) for handler in logger.handlers):  # a command that runs another
        yield
        return
    printer, level = _Printer(logging.INFO), logger.level
    logger.addHandler(printer)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(printer)
        logger.setLevel(level)
