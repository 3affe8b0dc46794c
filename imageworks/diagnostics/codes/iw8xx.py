"""8xx: importing the configuration of another system."""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.codes.code import Code

CODES: Mapping[str, Code] = {
    "IW800": Code(
        "nothing can be imported from this file",
        (
            "The file is not what the verb reads: a JSON registry of the reference system, or the YAML configuration of llama-swap. Or every model in it was left out, and the findings above say why. Nothing was written.",
        ),
    ),
    "IW801": Code(
        "a value was dropped because it is derived here",
        (
            "Ports, GPU numbers, memory shares, served names and which models may be loaded together follow from the plan. A typed copy could only disagree with it. `imageworks show` prints each derived value with its reason.",
        ),
    ),
    "IW802": Code(
        "an entry was left out",
        (
            "The entry is deprecated, a test, of a backend that is not known here, or lacks what makes a model: where its weights are, or how its server is started. The others were imported.",
        ),
    ),
    "IW803": Code(
        "an entry was repaired",
        (
            "The file said something that cannot have been meant, or that holds on one machine only, and the import wrote what works: a path below a root instead of a home folder, a capability that the model's name vouches for, nothing instead of the text None.",
        ),
    ),
    "IW804": Code(
        "entries were merged, or a name is taken",
        (
            "Two entries of one Ollama tag are one model, and every name of both goes on working as an alias. A request name can lead to one model only: the first keeps it.",
        ),
    ),
    "IW805": Code(
        "something cannot be said in this language",
        (
            "The file sets something that stack.yaml has no key for. It was dropped, because a key that is accepted and does nothing would be worse. Where the language grows such a key, import again or add it by hand.",
        ),
    ),
    "IW806": Code(
        "a person must decide",
        (
            "The file leaves something open or contradicts itself, and no rule can tell what was meant. The import wrote what is safest; look at the line and correct it where needed.",
        ),
    ),
    "IW807": Code(
        "a text was not understood",
        (
            "llama-swap starts programs without a shell, so pipes, substitutions and redirections never did what they look like; an unknown macro stops llama-swap itself. The model was left out. Write its command as a program and its words.",
        ),
        'cmd: bash -c "llama-server -m x.gguf | tee log"',
        "cmd: llama-server --port ${PORT} -m x.gguf",
    ),
    "IW808": Code(
        "a secret was not copied",
        (
            "stack.yaml is committed, so no key, token or password is ever taken over from another file. It is named by its place only. A key that stood in a file others can read should be replaced.",
        ),
    ),
    "IW810": Code(
        "the file is already there",
        ("An import never overwrites a file. Choose another name with -o, or move the old file away first.",),
    ),
}
