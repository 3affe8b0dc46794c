"""The typed stack: every key a person may write, declared once.

Owns names, types, defaults and descriptions; the JSON Schema and the field reference are made from here.
Values are in base units: sizes in bytes, durations in seconds, edges in pixels. `None` means "not said"
(a profile, a lock or the plan decides); it never survives into the plan. Knows nothing of YAML or spans:
a finding about a value is placed through its path (`("models", "qwen", "context")`) and the span table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from imageworks.model.part import Part
from imageworks.model.scalars import (
    Address,
    AtLeastOne,
    Count,
    CountOrRange,
    Day,
    Duration,
    FreeMap,
    HostsOrAll,
    Id,
    MigProfile,
    NamesOrAll,
    NoRule,
    Number,
    ParameterName,
    ParameterValue,
    Pixels,
    Placement,
    Port,
    Priority,
    Quality,
    RateOf,
    RelativePath,
    RootPath,
    SchemaVersion,
    Size,
    SizeRange,
    SomeText,
    Text,
    Tokens,
    TokensOrRange,
    TokensPerDay,
    Truth,
    Url,
    VariableName,
    VersionRange,
    Whole,
    none_or,
)
from imageworks.model.secret import EnvName, EnvValue, Secret, SecretName, SecretRef
from imageworks.model.sources import Source

Capability = Literal["chat", "vision", "tools", "reasoning", "embedding", "detection", "rerank", "audio", "iqa"]
Quantization = Literal[
    "fp32", "fp16", "bf16", "fp8", "int8", "awq", "gptq", "mxfp4", "nvfp4",
    "q2_k", "q3_k_m", "q4_0", "q4_1", "q4_k_s", "q4_k_m", "q5_0", "q5_k_s", "q5_k_m", "q6_k", "q8_0",
]  # fmt: skip
Strategy = Literal["load_unload", "concurrent_limited", "tensor_parallel_or_distributed", "concurrent_full"]
SelectionBias = Literal["vram_efficient", "balanced", "quality"]
Sleep = Literal["none", "level1", "level2"]
Override = dict[str, Any]


class Root(Part):
    """A directory of the machine that runs the stack; outputs carry its name, never its path."""

    env: SomeText | None = Field(None, description="environment variable that overrides the directory")
    default: RootPath = Field(description="directory relative to stack.yaml; absolute only in stack.local.yaml")


class Roots(Part):
    """Where bytes live on the machine that runs the stack."""

    models: Root = Field(description="model files named by `source.path` and `source.hf`")
    state: Root = Field(description="telemetry and other data of the runtime")


class Defaults(Part):
    """The lowest layer under each model."""

    context: TokensOrRange = Field(description="tokens per request")
    concurrency: CountOrRange = Field(description="requests served at once")
    grace: Duration = Field(description="idle time before a model is unloaded")
    start_timeout: Duration = Field(description="time a model may take until it answers")
    health_check_interval: Duration = Field(30.0, gt=0, description="how often a loaded model is looked at")


class VllmBackend(Part):
    """vLLM, started by us."""

    version: SomeText = Field("0.32.0", description="the installed vLLM; decides which flags and networks are known")
    command: SomeText = Field("vllm", description="program that is run, looked up on PATH")


class LlamaCppBackend(Part):
    """llama.cpp's server: the one inside the wheel (`bundled`) or a program of that command line."""

    command: SomeText = Field("bundled", description="`bundled`, or a llama-server program")
    threads: AtLeastOne = Field(1, description="compute threads; 2 on 2 busy cores are ten times slower than 1")


class OllamaBackend(Part):
    """An Ollama daemon that we do not own: models are loaded by asking and unloaded with keep_alive 0."""

    url: Url = Field("http://127.0.0.1:11434", description="address of the daemon")


class Backends(Part):
    """Engine facts shared by all models of a kind."""

    vllm: VllmBackend = VllmBackend.model_construct()
    llamacpp: LlamaCppBackend = LlamaCppBackend.model_construct()
    ollama: OllamaBackend = OllamaBackend.model_construct()


class DeviceMatch(Part):
    """One GPU of a machine whose GPUs differ, or one MIG slice."""

    vram: SizeRange | None = Field(None, description="NVML total of this GPU or slice")
    compute: VersionRange | None = Field(None, description="compute capability")
    mig: MigProfile | None = Field(None, description="a MIG slice of this profile, such as 3g.40gb; else a whole card")

    @property
    def floor(self) -> int:
        """Bytes that the plan may use: the lower end of `vram`; for a slice without it nine tenths of its name's GB."""
        if self.vram is not None:
            return self.vram.low
        return 0 if self.mig is None else int(self.mig.split(".")[1].removesuffix("gb")) * 900_000_000


class Match(Part):
    """Which machines a profile is for. The lower end of `vram` is what the plan may use."""

    gpus: Count | None = Field(None, description="exact number of equal GPUs (0: a machine without one)")
    vram: SizeRange | None = Field(None, description="NVML total of each GPU")
    compute: VersionRange | None = Field(None, description="compute capability of each GPU")
    devices: tuple[DeviceMatch, ...] = Field((), description="instead of gpus, vram and compute: each GPU or MIG slice")

    @property
    def slots(self) -> tuple[DeviceMatch, ...]:
        """What each GPU slot of the plan asks of its device."""
        return self.devices or (DeviceMatch.model_construct(vram=self.vram, compute=self.compute),) * (self.gpus or 0)


class Profile(Part):
    """A hardware profile: a kind of machine and how much of it may be used, and how."""

    match: Match
    headroom: Size = Field(1 << 30, description="kept free on each GPU for desktop, driver and strangers")
    host_memory: Size = Field(4 << 30, description="memory for models placed on the CPU")
    max_concurrent_models: AtLeastOne = Field(
        1, description="models loaded at once on GPUs (on the CPU where there is none)"
    )
    strategy: Strategy = Field("load_unload", description="one at a time, or as many as fit")
    tensor_parallel_above: Size | None = Field(None, description="weights beyond this are split over all GPUs")
    prefer_quantizations: tuple[Quantization, ...] = Field((), description="tie-break of equal priority, best first")
    selection_bias: SelectionBias = Field("balanced", description="tie-break after prefer_quantizations")
    start_timeout: Duration | None = Field(None, description="replaces defaults.start_timeout on this hardware")
    grace: Duration | None = Field(None, description="replaces defaults.grace on this hardware")
    override: Override = Field(
        default_factory=dict,
        description="keys of the stack that this profile sees differently; lies above all files, empty in the typed stack",
    )


class Vram(Part):
    """Replaces terms of the memory estimate; `total` replaces the sum and needs `because`."""

    weights: Size | None = Field(None, description="bytes of weights in memory")
    kv: Size | None = Field(None, description="bytes of KV cache")
    total: Size | None = Field(None, description="replaces the whole sum")
    because: SomeText | None = Field(None, description="where the total comes from")


class PinnedPort(Part):
    """A derived value fixed by a person, with the reason."""

    value: Port = Field(description="the port")
    because: SomeText = Field(description="why it is not derived")


class Pin(Part):
    """Derived values that a person fixes."""

    port: PinnedPort | None = None


class Sampling(Part):
    """Sampling values used where a request is silent."""

    temperature: Number | None = Field(None, ge=0, le=5, description="0 is greedy")
    top_p: Number | None = Field(None, gt=0, le=1, description="nucleus")
    top_k: Whole | None = Field(None, ge=-1, description="-1 or 0: all tokens")
    min_p: Number | None = Field(None, ge=0, le=1, description="relative to the likeliest token")
    max_tokens: Whole | None = Field(None, ge=1, description="longest answer")
    presence_penalty: Number | None = Field(None, ge=-2, le=2, description="for tokens that occurred")
    frequency_penalty: Number | None = Field(None, ge=-2, le=2, description="for each occurrence")
    repetition_penalty: Number | None = Field(None, gt=0, description="1 is none")
    seed: Whole | None = Field(None, description="of the random numbers")


class Params(Part):
    """What the proxy does to the parameters of every request for a model."""

    set: dict[ParameterName, ParameterValue] = Field(
        default_factory=dict, description="parameter -> value, whatever the client sent"
    )
    strip: tuple[ParameterName, ...] = Field((), description="parameters that are taken out")


class Coexist(Part):
    """Models that are never loaded beside this one, though they would fit."""

    never: tuple[Id, ...] = Field(min_length=1, description="models, or groups of them")
    because: SomeText | None = Field(None, description="why not")


class Template(Part):
    """A chat template of the user's own instead of the one inside the weights."""

    path: RelativePath = Field(description="Jinja file, relative to stack.yaml")


class Model(Part):
    """A servable thing. A key that belongs to another backend is an error."""

    backend: Literal["vllm", "llamacpp", "ollama", "openai"] = Field(
        description="kind of engine; decides which other keys may stand here"
    )
    aliases: tuple[SomeText, ...] = Field((), description="further request names, any characters")
    source: Source | None = Field(None, description="where the weights come from")
    quantization: Quantization | None = Field(None, description="hardware needs, tie-break; default: models.lock")
    capabilities: tuple[Capability, ...] | None = Field(None, description="default: what models.lock says, else [chat]")
    context: TokensOrRange | None = Field(None, description="tokens per request; a range is solved per profile")
    concurrency: CountOrRange | None = Field(None, description="requests at once; a range is solved after the context")
    vram: Vram = Vram.model_construct()
    placement: Placement | None = Field(None, description="default gpu; auto for llamacpp")
    roles: dict[Id, Priority] = Field(default_factory=dict, description="role -> priority, higher wins")
    sampling: Sampling = Sampling.model_construct()
    params: Params = Params.model_construct()
    variants: dict[Id, dict[ParameterName, ParameterValue]] = Field(
        default_factory=dict,
        description="name -> parameters: `M:name` is this model with them set, without a second process",
    )
    tool_calls: Literal["keep", "normalise"] = Field(
        "keep",
        description="normalise: an answer that is nothing but calls of declared tools, written as text, becomes tool_calls",
    )
    template: Template | None = Field(None, description="default: the chat template inside the weights")
    grace: Duration | None = Field(None, description="idle time before it is unloaded")
    start_timeout: Duration | None = Field(None, description="time it may take until it answers")
    keep: Literal["grace", "pinned"] = Field("grace", description="pinned: never unloaded for idleness, never evicted")
    sleep: Sleep = Field(
        "none",
        description="vLLM sleeps instead of being stopped: level1 keeps the weights in host_memory, level2 reads them again",
    )
    coexist: Coexist | None = Field(None, description="what is never loaded beside it")
    pin: Pin = Pin.model_construct()
    vllm: FreeMap = Field(default_factory=dict, description="flags of `vllm serve` without the dashes")
    command: tuple[Text, ...] | None = Field(
        None,
        min_length=1,
        description="program of an OpenAI-compatible server; words ${host} ${port} ${source} ${name} are filled in",
    )
    env: dict[EnvName, EnvValue] = Field(
        default_factory=dict, description="environment of `command`: texts, or secrets as {secret: NAME}"
    )
    url: Url | None = Field(None, description="a remote OpenAI-compatible server, never started or stopped by us")
    key: SecretRef | None = Field(
        None, description="{secret: NAME}: sent to `url` as bearer token; read when the proxy starts, never compiled"
    )


class VisionHistory(Part):
    """What is kept of a conversation with images, besides its current turn."""

    keep_system: Truth = Field(default=True, description="system messages stay")
    keep_turns: Count = Field(
        0, description="turns before the current one; the last one with an image stays where it is asked about"
    )
    max_bytes: Size = Field(32 << 20, description="older turns go until the rest is smaller")


class ReasoningHistory(Part):
    """What is kept of a conversation without images with a model that reasons, besides its current turn."""

    keep_system: Truth = Field(default=True, description="system messages stay")
    keep_turns: Count = Field(1, description="turns before the current one")


VisionRule = Annotated[
    Annotated[VisionHistory, Tag("<rule>")] | Annotated[NoRule, Tag("<none>")], Discriminator(none_or)
]
ReasoningRule = Annotated[
    Annotated[ReasoningHistory, Tag("<rule>")] | Annotated[NoRule, Tag("<none>")], Discriminator(none_or)
]


class History(Part):
    """How much of a conversation is sent to a model again."""

    vision: VisionRule = Field(
        VisionHistory.model_construct(), description="conversations with images; none: all of them is sent"
    )
    reasoning: ReasoningRule = Field("none", description="models with the capability reasoning; off unless it is said")


RoleHistory = Annotated[Annotated[History, Tag("<rule>")] | Annotated[NoRule, Tag("<none>")], Discriminator(none_or)]


class Images(Part):
    """What images of requests may be."""

    max_bytes: Size = Field(20 << 20, description="of one image as it was sent")
    jpeg_quality: Quality = Field(85, description="of an image that had to be made smaller")
    formats: tuple[Literal["jpeg", "png", "webp", "gif", "bmp"], ...] = Field(
        ("jpeg", "png", "webp"), description="others are refused"
    )
    remote: HostsOrAll = Field(
        (), description="hosts that images of chats are fetched from over https, or all; else images are sent inline"
    )


class RoleImages(Part):
    """What images a role takes."""

    max: AtLeastOne = Field(1, description="images in one request")
    max_edge: Pixels | None = Field(None, description="long edge; a larger image is made smaller; bounds its tokens")
    max_bytes: Size | None = Field(None, description="replaces proxy.images.max_bytes")
    jpeg_quality: Quality | None = Field(None, description="replaces proxy.images.jpeg_quality")


class Role(Part):
    """What a client asks for; a model may serve a role only if it meets this contract."""

    requires: tuple[Capability, ...] = Field(description="what a model must be able to do")
    images: RoleImages | None = None
    max_tokens: Tokens | None = Field(None, description="upper bound of the answer")
    deadline: Duration = Field(600.0, description="from arrival to the first byte of the answer")
    history: RoleHistory | None = Field(None, description="replaces keys of proxy.history; none: all is sent")
    urgency: Literal["background", "normal", "interactive"] = Field(
        "normal", description="whose requests are served first where models share a machine"
    )
    fallback: tuple[Id, ...] = Field((), description="roles whose models are asked when none of its own can serve")
    may_be_missing_on: tuple[Id, ...] = Field((), description="profiles where nobody needs to serve it")


class Group(Part):
    """Models kept loaded together on the named profiles; that they fit is proved."""

    models: tuple[Id, ...] = Field(description="loaded together")
    profiles: tuple[Id, ...] = Field(description="where")
    allocation: Literal["custom", "balanced", "priority"] = Field(
        "custom",
        description="each its need; equal shares of the GPU; or shares by the highest role priority of each model",
    )
    startup: Literal["sequential", "parallel"] = Field(
        "sequential", description="where all stay loaded: one start after the other, or at once on different devices"
    )


class Ports(Part):
    """Where the loopback ports of models come from."""

    first: Port = Field(24001, description="lowest port of a model")
    last: Port = Field(32767, description="highest; by default the last one below Linux's ephemeral ports")


class Binding(Part):
    """Which role answers an app's stage and which prompt profile speaks."""

    role: Id = Field(description="who answers")
    profile: Id = Field(description="which prompt profile speaks")


class Prompts(Part):
    """Prompt files: <path>/<layer>/<app>/<profile>.yaml; later layers win."""

    path: RelativePath = Field("prompts", description="folder of the prompt files")
    layers: tuple[Id, ...] = Field(("base", "app", "user"), description="lowest first")
    bind: dict[Text, Binding] = Field(default_factory=dict, description="app.stage -> role and prompt profile")


class Limits(Part):
    """Bounds of the proxy."""

    body: Size = Field(64 << 20, description="largest request body")
    queue: Count = Field(256, description="requests that may wait for a model")
    queue_wait: Duration = Field(600.0, description="longest wait for a model")
    completions_per_request: AtLeastOne = Field(4, description="largest `n` of a request")


class Parameters(Part):
    """Parameters of requests beyond those that shape an answer."""

    allow: tuple[ParameterName, ...] = Field(
        (), description="names that a client may set although engines have been broken by them"
    )


class May(Part):
    """What the holder of a key may ask for."""

    roles: NamesOrAll = Field("all", description="roles, or all")
    models: NamesOrAll | None = Field(
        None, description="models by name, or all; default: all where roles is all, else none"
    )
    admin: Truth = Field(default=False, description="may unload models and hold leases")


class ClientKey(Part):
    """A key that a client of the proxy shows; how much it may be used."""

    key: SecretRef = Field(description="{secret: NAME}: read when the proxy starts, never compiled")
    may: May = May.model_construct()
    rate: RateOf | None = Field(None, description="requests, such as 30/min")
    tokens: TokensPerDay | None = Field(None, description="tokens of prompts and answers, such as 200k/day")
    concurrency: AtLeastOne | None = Field(None, description="requests at once")
    expires: Day | None = Field(None, description="the last day it works, UTC")


class Auth(Part):
    """Who may use the proxy. Without a key everybody who reaches it; with one, only who shows it."""

    keys: dict[Id, ClientKey] = Field(default_factory=dict, description="name -> a client's key")


class Proxy(Part):
    """The one URL."""

    bind: Address = Field(("127.0.0.1", 8100), description="host:port")
    limits: Limits = Limits.model_construct()
    history: History = History.model_construct()
    images: Images = Images.model_construct()
    parameters: Parameters = Parameters.model_construct()
    auth: Auth = Auth.model_construct()


class Leases(Part):
    """How models and other programs share the GPUs."""

    mode: Literal["enforce", "observe"] = Field(
        "enforce", description="observe: leases are kept and what they would block is logged, but nothing is blocked"
    )
    ttl: Duration = Field(60.0, ge=1, description="a lease whose holder is silent for so long ends")
    queue_wait: Duration = Field(600.0, description="longest wait for a lease")
    min_residency: Duration = Field(20.0, description="a model just loaded is not evicted before this")
    max_overtakes: Count = Field(32, description="no request is passed by younger ones more often than this")


class SupervisordTarget(Part):
    """supervisord.conf."""

    enabled: Truth = Field(default=True, description="written or not")


class SystemdTarget(Part):
    """systemd units."""

    enabled: Truth = Field(default=True, description="written or not")
    scope: Literal["user", "system"] = Field(
        "system", description="units of the system, fully sandboxed, or of a user, which need no root and cannot be"
    )
    prefix: Text | None = Field(
        None,
        description="the stack's folder on the machine, in systemd's own specifiers; default /srv/imageworks, %h/imageworks for scope user",
    )


class VllmScriptsTarget(Part):
    """vllm/<model>.sh: the launch command for a human."""

    enabled: Truth = Field(default=True, description="written or not")


class LlamaSwapTarget(Part):
    """llama-swap.yaml: the profile for people who run llama-swap instead of our proxy."""

    enabled: Truth = Field(default=False, description="written or not")


class PluginTarget(Part):
    """An output that an installed package writes: an entry point of the group `imageworks.targets`."""

    enabled: Truth = Field(default=True, description="written or not")
    options: FreeMap = Field(default_factory=dict, description="what the package makes of it is said in its own pages")


class Targets(Part):
    """Which outputs are written. A name that is not here is that of an installed package's target."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, PluginTarget] = Field(init=False)
    supervisord: SupervisordTarget = SupervisordTarget.model_construct()
    systemd: SystemdTarget = SystemdTarget.model_construct()
    vllm_scripts: VllmScriptsTarget = VllmScriptsTarget.model_construct()
    llama_swap: LlamaSwapTarget = LlamaSwapTarget.model_construct()

    @property
    def plugins(self) -> Mapping[str, PluginTarget]:
        """Targets of installed packages, by name."""
        return self.__pydantic_extra__


class Stack(Part):
    """The whole declared system."""

    version: SchemaVersion = Field(description="of this language")
    include: tuple[RelativePath, ...] = Field((), description="files below this one, relative to it")
    variables: dict[VariableName, Text] = Field(default_factory=dict, description="texts for `${NAME}` in other texts")
    secrets: dict[SecretName, Secret] = Field(
        default_factory=dict, description="names for values that are read at start and never written anywhere"
    )
    name: Id = Field(description="prefix of systemd units; names the stack in generated files")
    defaults: Defaults
    roots: Roots
    backends: Backends = Backends.model_construct()
    profiles: dict[Id, Profile]
    models: dict[Id, Model]
    roles: dict[Id, Role]
    groups: dict[Id, Group] = Field(default_factory=dict)
    ports: Ports = Ports.model_construct()
    prompts: Prompts = Prompts.model_construct()
    proxy: Proxy = Proxy.model_construct()
    leases: Leases = Leases.model_construct()
    targets: Targets = Targets.model_construct()
