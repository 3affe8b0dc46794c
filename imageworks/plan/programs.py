"""The parts of a plan that are the same for every model: proxy, roots, targets and the chain of stop times.

Owns the first two links drain < stopwaitsecs; the systemd target adds the third (TimeoutStopSec).
"""

from __future__ import annotations

from imageworks.model.loaded import Loaded
from imageworks.model.stack import Roots
from imageworks.plan import conversation, secret_refs
from imageworks.plan.ir import Flag, Launch, Options, PlannedProxy, Plugin, RootDir

DRAIN_S = 20.0
"""Requests in flight may finish this long after SIGTERM."""
STOP_WAIT_S = 30.0
"""A program may take this long to stop before it is killed; above the drain."""
PREFIXES = {"system": "/srv/imageworks", "user": "%h/imageworks"}
"""Where systemd's units expect the stack, by their scope, unless the stack says so."""


def proxy(loaded: Loaded, profile: str, out: str) -> PlannedProxy:
    """The proxy program of `profile`, whose files lie in `out`."""
    ours = loaded.stack.proxy
    bind, limits = ours.bind, ours.limits
    why = "the proxy reads routes.json and nothing else"
    flags = (
        Flag("", "{python}", "the Python that ImageWorks is installed in", path=True),
        Flag("", "-m", "our own program"),
        Flag("", "imageworks", "our own program"),
        Flag("", "serve", "the proxy"),
        Flag("--routes", f"{{stack}}/{out}/{profile}/routes.json", why, form="pair", path=True),
        Flag("--stack", "{stack}", "state and logs lie beside stack.yaml", form="pair", path=True),
    )
    return PlannedProxy(
        host=bind[0],
        port=bind[1],
        body_limit=limits.body,
        queue=limits.queue,
        queue_wait_s=limits.queue_wait,
        drain_s=DRAIN_S,
        completions=limits.completions_per_request,
        parameters=tuple(sorted(ours.parameters.allow)),
        history=conversation.history(ours),
        images=conversation.images(ours),
        keys=secret_refs.clients(loaded.stack),
        remote_images=None if ours.images.remote == "all" else tuple(sorted(set(ours.images.remote))),
        launch=Launch("imageworks-proxy", flags, {}, (), ()),
    )


def root_dirs(roots: Roots) -> tuple[RootDir, ...]:
    """The declared roots, by name."""
    pairs = (("models", roots.models), ("state", roots.state))
    return tuple(RootDir(name, root.env, root.default) for name, root in pairs)


def options(loaded: Loaded) -> Options:
    """The target switches."""
    targets = loaded.stack.targets
    plugins = [(name, target) for name, target in sorted(targets.plugins.items()) if target.enabled]
    return Options(
        supervisord=targets.supervisord.enabled,
        systemd=targets.systemd.enabled,
        systemd_scope=targets.systemd.scope,
        systemd_prefix=targets.systemd.prefix or PREFIXES[targets.systemd.scope],
        vllm_scripts=targets.vllm_scripts.enabled,
        llama_swap=targets.llama_swap.enabled,
        plugins=tuple(Plugin(name, target.options, loaded.key("targets", name)) for name, target in plugins),
    )
