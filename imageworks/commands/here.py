"""What runs for the stack of a folder, as the launcher wrote it down; cheap to ask.

Owns reading the word that the launcher left when it started the proxy: from which folder of generated files,
and so with which routing table. Asks no process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imageworks import locations

PROXY = "imageworks-proxy"


def routes(folder: Path) -> dict[str, Any] | None:
    """The routing table that the proxy of this stack was last started with; None before its first start."""
    try:
        word = json.loads(locations.started_file(folder, PROXY).read_text(encoding="utf-8"))
        table = json.loads((Path(word["file"]).parents[1] / "routes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return table if isinstance(table, dict) else None


def address(folder: Path) -> str | None:
    """Where that proxy listens, as a client writes it; None before its first start."""
    proxy = (routes(folder) or {}).get("proxy")
    if proxy is None:
        return None
    host = f"[{proxy['host']}]" if ":" in proxy["host"] else proxy["host"]
    return f"http://{host}:{proxy['port']}"
