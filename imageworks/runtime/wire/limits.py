"""The edge's bounds: what a client may hold, and for how long.

Owns numbers only, each with its reason. Sizes are bytes, times seconds. What a person may want to change lies in the
stack (`proxy.limits`), not here.
"""

from __future__ import annotations

HEAD_BYTES = 32 << 10
"""Request line and headers; four times a usual server's 8 KiB line."""
LINE_BYTES = 8 << 10
"""One line of the head, as nginx and aiohttp have it."""
FIELDS = 100
CHUNK_LINE_BYTES = 128
"""A chunk's size and extensions; nobody uses these, and long ones are attacks."""
CHUNKS = 1 << 16
"""Chunks of one body: a body in single bytes costs more to read than to send."""
TRAILER_BYTES = 4 << 10
SMALL_BODY_BYTES = 64 << 10
"""Up to here a body is taken before its key is looked at, where keys are wanted."""

HEAD_S = 10.0
"""From the first byte of a request (or the accept) to the end of its head."""
BODY_S, BODY_BYTES_PER_S = 30.0, 64 << 10
"""A body may take 30 s and a second more for each 64 KiB."""
IDLE_S = 75.0
"""Between two requests; what nginx has, above the 60 s of most load balancers."""
STALL_S = 60.0
"""How long a client may take nothing of an answer that waits for it."""
GRACE_S = 0.2
"""How long a client that sent FIN may still get its answer: HTTP allows half-closed connections, but one that is gone looks the same.
The rest of the 250 ms within which its engine's work ends is the loop's."""
LINGER_S, LINGER_BYTES = 2.0, 8 << 20
"""After an early refusal the rest of a body is read and dropped for so long, else the reset would eat the answer."""
SWEEP_S = 0.5
"""How exactly the times above are kept, but for GRACE_S."""

CONNECTIONS = 4096
"""Open client connections; above it the longest idle one goes, and without an idle one the newest."""
PIPELINED_BYTES = 64 << 10
"""What a client may send ahead while its request is served."""
WRITE_HIGH, WRITE_LOW = 128 << 10, 32 << 10
"""Bytes waiting for one client at which its engine is no longer read, and read again."""
SEND_BYTES = 512 << 10
"""A large body goes to the engine in such pieces, so that others are served in between."""

UPSTREAM_IDLE_S = 2.0
"""Below the 5 s of llama.cpp and vLLM: a connection they are about to close is not used again."""
REST_S = 0.25
"""How long a connection rests after an answer of unannounced length: an engine that says it keeps it and closes it (llama.cpp
does, within 50 µs) has done so by then, and no request is lost on it."""
CONNECT_S = 5.0
