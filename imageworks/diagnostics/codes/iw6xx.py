"""6xx: generated files and the folder they are written to."""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.codes.code import Code

CODES: Mapping[str, Code] = {
    "IW601": Code(
        "a generated file was edited by hand",
        (
            "The next compile would lose the change, so nothing was written. Move the change into stack.yaml; `imageworks compile --overwrite` then writes the files anew.",
        ),
    ),
    "IW602": Code(
        "a file of somebody else stands where a generated one belongs",
        ("The file is not in the manifest, so it was not written by imageworks, and it is never overwritten unasked.",),
    ),
    "IW603": Code(
        "the files cannot be written",
        (
            "The system refused: no permission, no space, or a broken folder. Each profile's folder is replaced as a whole, so what was there before is unchanged.",
        ),
    ),
    "IW604": Code(
        "the path of the control socket is too long",
        (
            "The address of a Unix socket holds 107 bytes. The socket lives under .imageworks/run beside stack.yaml, so the stack's folder must have a shorter path.",
        ),
    ),
    "IW605": Code(
        "the stack's folder has a name that supervisord cannot carry",
        (
            "supervisord gives %, quotes and backslashes a meaning of their own, also in the path of the folder that it finds its programs in.",
        ),
    ),
    "IW606": Code(
        "the folder was written by a newer version",
        (
            "A generated file carries a schema number that this version does not know. Update this installation, or compile into another folder.",
        ),
    ),
}
