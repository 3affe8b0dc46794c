"""Where a model's files lie on the machine that runs it, and how to get them.

Owns the mapping from `source` to tokenised paths (`{models}/…`, `{store}/…`) and to the command that fetches
what is missing. Reads no file and resolves no token; nothing is ever downloaded behind the user's back.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from posixpath import basename

from imageworks.model.sources import HfSource, OllamaSource, PackageSource, PathSource, SameAsSource, Source
from imageworks.model.stack import Model, Template
from imageworks.plan.ir import Need, PackageFile
from imageworks.values import dataclass


@dataclass(frozen=True, slots=True)
class Files:
    """Where the weights are: `path` and `mmproj` carry tokens; `words` names the source for people."""

    path: str | None
    mmproj: str | None
    needs: tuple[Need, ...]
    package: PackageFile | None
    words: str


def template_path(template: Template) -> str:
    """Where a chat template of the user's own lies, with tokens."""
    return f"{{stack}}/{template.path}"


NOWHERE = Files(None, None, (), None, "no source")


def origin(models: Mapping[str, Model], model_id: str) -> str:
    """The model that really names the bytes: the end of a chain of `same_as`. A cycle ends where it closes."""
    seen = {model_id}
    while True:
        source = models[model_id].source
        if not isinstance(source, SameAsSource) or source.same_as not in models or source.same_as in seen:
            return model_id
        model_id = source.same_as
        seen.add(model_id)


def files(source: Source | None, models_default: str) -> Files:
    """Paths, needs and package of `source`; `models_default` is the declared default of roots.models, for hints."""
    match source:
        case PathSource():
            return _local(source, models_default)
        case HfSource():
            return _hub(source, models_default)
        case PackageSource():
            return _packaged(source)
        case OllamaSource():
            return Files(None, None, (), None, f"Ollama tag {source.ollama}")
        case _:
            return NOWHERE


def _local(source: PathSource, models_default: str) -> Files:
    paths = [item for item in (source.path, source.mmproj) if item is not None]
    needs = tuple(Need(f"{{models}}/{path}", _bring(path, models_default)) for path in paths)
    mmproj = None if source.mmproj is None else f"{{models}}/{source.mmproj}"
    return Files(f"{{models}}/{source.path}", mmproj, needs, None, source.path)


def _bring(path: str, models_default: str) -> str:
    place = f"{models_default}/{path}"
    looks_like_a_repository = path.count("/") == 1 and not path.lower().endswith(".gguf")
    if looks_like_a_repository:
        return _command("hf", "download", path, "--local-dir", place)
    return f"put it at {place}, or point the models root at the folder that holds it"


def _hub(source: HfSource, models_default: str) -> Files:
    folder = f"{{models}}/{source.hf}"
    wanted = [item for item in (source.file, source.mmproj) if item is not None]
    words = ["hf", "download", source.hf, *wanted]
    for pattern in source.exclude:
        words += ["--exclude", pattern]
    if source.revision is not None:
        words += ["--revision", source.revision]
    hint = _command(*words, "--local-dir", f"{models_default}/{source.hf}")
    paths = [f"{folder}/{item}" for item in wanted] if source.file is not None else [folder]
    mmproj = None if source.mmproj is None else f"{folder}/{source.mmproj}"
    return Files(paths[0], mmproj, tuple(Need(path, hint) for path in paths), None, source.hf)


def _command(*words: str) -> str:
    return shlex.join(words)


def _packaged(source: PackageSource) -> Files:
    path = f"{{store}}/sha256/{source.sha256}/{basename(source.file)}"
    package = PackageFile(source.package, source.version, source.file, source.sha256, path)
    return Files(path, None, (Need(path, "imageworks up"),), package, f"{source.package} {source.version}")
