"""Which profile this machine gets, and the reason: flag > IMAGEWORKS_DEPLOYMENT_PROFILE > detection > development.

Owns the choice and its explanation record. Detection looks at the hardware through NVML; the rules of the
choice are the plan's (`imageworks.plan.match`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from imageworks.model.stack import Profile
from imageworks.values import dataclass

if TYPE_CHECKING:
    from imageworks.plan.match import FoundGpu

ENVIRONMENT = "IMAGEWORKS_DEPLOYMENT_PROFILE"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The profile to run, the UUIDs of its GPU slots in order, and why, one line each."""

    profile: str
    uuids: tuple[str, ...]
    why: tuple[str, ...]


class UnknownProfileError(ValueError):
    """The flag or the environment names a profile that the stack does not have, or no profile can run on this machine."""


def choose_profile(
    profiles: Mapping[str, Profile], flag: str | None, environ: Mapping[str, str] = os.environ
) -> Chosen:
    """Choose by flag, environment or hardware. Raises UnknownProfileError."""
    for name, origin in ((flag, "--profile"), (environ.get(ENVIRONMENT) or None, ENVIRONMENT)):
        if name is not None:
            if name not in profiles:
                raise UnknownProfileError(_unknown(name, origin, list(profiles)))
            return Chosen(name, _devices(profiles[name], name), (f"{origin} says so",))
    return _detected(profiles)


def _detected(profiles: Mapping[str, Profile]) -> Chosen:
    from imageworks.plan.match import choose

    gpus, notes = found_gpus()
    choice = choose(profiles, gpus)
    if choice.how == "none":
        raise UnknownProfileError("; ".join((*notes, *choice.explanation)))
    uuids = tuple(gpus[index].uuid for index in choice.gpu_indexes)
    return Chosen(choice.profile, uuids, (*notes, *choice.explanation))


def found_gpus() -> tuple[tuple[FoundGpu, ...], tuple[str, ...]]:
    """The GPUs of this machine as the rules of the choice see them, and what is odd about them."""
    from imageworks.hardware.nvml import detect
    from imageworks.plan.match import FoundGpu

    found = detect()
    gpus = tuple(FoundGpu(gpu.uuid, gpu.name, gpu.total_bytes, gpu.compute, gpu.mig) for gpu in found.gpus)
    return gpus, ((found.note,) if found.note else ())


def _devices(profile: Profile, name: str) -> tuple[str, ...]:
    """UUIDs for a profile that was asked for by name: those a match on this profile alone would take."""
    from imageworks.plan.match import choose

    if not profile.match.slots:
        return ()
    gpus, _ = found_gpus()
    choice = choose({name: profile}, gpus)
    return tuple(gpus[index].uuid for index in choice.gpu_indexes)


def _unknown(name: str, origin: str, known: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean `{close[0]}`?" if close else ";"
    return f"{origin} names the unknown profile `{name}`{hint} profiles: {', '.join(known)}"
