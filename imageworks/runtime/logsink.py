"""The proxy's own log, which must never hold it up.

Owns a handler that writes to a descriptor only while it takes bytes at once. supervisord reads our stderr through a pipe:
when nobody reads any more (a hung supervisor, a full disk behind it), a plain write would block the event loop and with
it every answer. What does not fit is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import select

FORMAT = "%(asctime)s %(levelname)s %(message)s"
PIECE = 4096
"""Bytes of one write: PIPE_BUF of Linux, which a pipe that polls writable takes whole (pipe(7))."""


class DroppingHandler(logging.Handler):
    """Writes lines to descriptor `fd`, or drops them; `dropped` counts those that nobody was told of yet."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))
        self._fd, self.dropped = fd, 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; never blocks, never raises."""
        try:
            line = self.format(record)
        except Exception:  # a record that cannot be formatted must not end what it speaks of
            self.handleError(record)
            return
        if self.dropped:
            line = f"({self.dropped} lines before this one were dropped: nobody read the log)\n{line}"
        self.dropped = 0 if self._write(line) else self.dropped + 1

    def _write(self, line: str) -> bool:
        data = line.encode(errors="backslashreplace") + b"\n"
        try:
            while data:
                if not self._takes_bytes():
                    return False
                data = data[os.write(self._fd, data[:PIECE]) :]
        except OSError:
            return False
        return True

    def _takes_bytes(self) -> bool:
        return any(event & select.POLLOUT for _, event in self._poll.poll(0))
