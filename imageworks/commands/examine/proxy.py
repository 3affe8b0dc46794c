"""Doctor: what the running proxy says of itself and of its models.

Owns the findings of /readyz and /v1/models/health. A proxy that does not run is no fault; one whose port is ours and that
does not answer is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from imageworks.commands import client_key
from imageworks.commands.examine.finding import Finding, Level
from imageworks.commands.examine.versions import fetch

_FAILED = ("failed", "quarantined", "suspect", "dead")


def _with_key(url: str, path: str) -> Any:
    return fetch(url, path, client_key.headers())


def check(address: str | None, ask: Callable[[str, str], Any] = _with_key) -> Iterator[Finding]:
    """What is degraded, and which models are not well; nothing where no proxy answers."""
    ready = ask(address, "/readyz") if address else None
    if not isinstance(ready, dict):
        return
    troubles = [str(trouble) for trouble in ready.get("degraded") or ()]
    for trouble in troubles:
        yield Finding("proxy", "warning", trouble, "look at the disk and the driver above; imageworks logs has more")
    models = (ask(address or "", "/v1/models/health") or {}).get("models")
    if models is None:
        yield Finding("proxy", "warning", f"answers at {address} and does not tell how its models are", client_key.HINT)
        return
    for model in models:
        yield from _model(model)
    if not troubles:
        yield Finding(
            "proxy", "ok", f"answers at {address}, {sum(each['health'] == 'healthy' for each in models)} healthy models"
        )


def _model(model: Mapping[str, Any]) -> Iterator[Finding]:
    if model["health"] in _FAILED:
        level: Level = "error" if model["health"] == "quarantined" else "warning"
        found = f"{model['model']} is {model['health']}: {model['reason'] or 'no reason is known'}"
        yield Finding("models", level, found, f"imageworks logs {model['model']}")
