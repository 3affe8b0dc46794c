"""7xx: prompts and their bindings."""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.codes.code import Code

CODES: Mapping[str, Code] = {
    "IW701": Code(
        "a prompt binding leads nowhere",
        (
            "A binding names a role and a prompt profile; both must exist. Profiles are looked for in the layers of prompts.path as <layer>/<app>/<profile>.yaml. There is no silent fallback to another profile.",
        ),
        "personal_tagger.caption: {role: caption, profile: tager_default}",
        "personal_tagger.caption: {role: caption, profile: tagger_default}",
    ),
    "IW702": Code(
        "a binding names no stage",
        (
            "The key of a binding is the app and its stage with a point between them. The app is also the folder of its prompt profiles.",
        ),
        "bind:\n  caption: {role: caption, profile: tagger_default}",
        "bind:\n  personal_tagger.caption: {role: caption, profile: tagger_default}",
    ),
}
