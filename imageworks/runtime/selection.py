"""Which model a role would get: the answer of GET /v1/models/select_by_role.

Owns the reading of role tables, also of profiles that do not run. Pure; it starts nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from imageworks.contract import RoleCandidate, RouteTable
from imageworks.runtime.table import no_model_for_role, role_table


def select_by_role(
    table: RouteTable,
    role: str,
    *,
    profile: str | None = None,
    exclude: Collection[str] = (),
    top_n: int | None = None,
    loaded: Collection[str] = (),
) -> dict[str, Any]:
    """The best models of a role on a profile (default: the running one), as design.md 6 shapes it.

    `exclude` leaves models out; `loaded` models win ties of equal priority, nothing else; `vram_estimate_mb`
    is in MiB, the field's name is the reference system's. Raises ApiError 404 when none is left.
    """
    profile = profile or table.profile
    contract = role_table(table, role, profile)
    left = [candidate for candidate in contract.candidates if candidate.model not in exclude]
    rank: dict[tuple[str, int], int] = {}
    for place, candidate in enumerate(left):
        rank.setdefault((candidate.via, candidate.priority), place)
    left.sort(key=lambda candidate: (rank[candidate.via, candidate.priority], candidate.model not in loaded))
    if not left:
        raise no_model_for_role(table, role, contract)
    rows = [_row(candidate) for candidate in left[:top_n]]
    return {"role": role, "profile": profile, **rows[0], "models": rows}


def _row(candidate: RoleCandidate) -> dict[str, Any]:
    return {
        "model": candidate.model,
        "priority": candidate.priority,
        "vram_estimate_mb": candidate.vram_mib,
        "quantization": candidate.quantization,
        "via": candidate.via,
        "why": candidate.why,
    }
