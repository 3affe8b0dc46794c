"""What a stream that waits for its model is told: a comment, or an event where the client asks for one.

Owns both forms and the header that chooses. Comments are what every reader of server-sent events skips; an event of its own
would be read as an answer by clients that do not know it. Pure.
"""

from __future__ import annotations

import msgspec

from imageworks.runtime.errors import ApiError

HEADER = "x-imageworks-status"
"""Request header: `events` for events in the place of comments."""
EVENT = "imageworks.status"


class Waiting(msgspec.Struct, frozen=True):
    """How it stands: what is waited for and how that is, the place in the queue (1 is next), about how long, and at most."""

    model: str
    state: str
    place: int | None
    estimate_s: float | None
    left_s: int

    def comment(self) -> bytes:
        """For every client."""
        place = "" if self.place is None else f", place {self.place}"
        about = "" if self.estimate_s is None else f", about {self.estimate_s:.0f} s"
        return f": waiting for {self.model} ({self.state}){place}{about}, {self.left_s} s at most\n\n".encode()

    def event(self) -> bytes:
        """For one that asked."""
        return f"event: {EVENT}\ndata: ".encode() + msgspec.json.encode(self) + b"\n\n"


def wants_events(header: str | None) -> bool:
    """Does the request ask for events? Raises ApiError 400 for words that nobody knows.

    >>> wants_events("events")
    True
    """
    if header is None:
        return False
    if header.strip() != "events":
        raise ApiError(400, "invalid_header", f"{HEADER}: `{header.strip()[:60]}` is not known", hint="events")
    return True
