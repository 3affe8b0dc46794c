"""The key that our own commands show to the proxy.

Owns the variable IMAGEWORKS_KEY. A stack without keys needs none; with keys, commands are clients like any other.
"""

from __future__ import annotations

import os

VARIABLE = "IMAGEWORKS_KEY"
HINT = f"show a key of proxy.auth.keys: export {VARIABLE}=…"


def headers() -> dict[str, str]:
    """What a request of ours carries."""
    key = os.environ.get(VARIABLE, "").strip()
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
