"""The typed experiment: what a configuration means once it has been checked.

`check` takes plain data (as YAML gives it) and returns an Experiment, or raises every
mistake at once; nothing behind this door sees a configuration file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from srbench.config import attention
from srbench.config.attention import Attention
from srbench.config.custom_weights import LoRA, OwnWeights
from srbench.config.registry import STRICT, build, identity, load
from srbench.errors import Mistakes, UserError, UserErrors, did_you_mean

Role = Literal["large", "small"]
DType = Literal["float32", "bfloat16", "float16"]


def _folder_name(name: str) -> str:
    if (
        not 1 <= len(name.encode()) <= 100
        or name[0] in ".-"
        or not name.isprintable()
        or set(name) & set("/\\")
    ):
        raise ValueError(
            "a name that a folder can have: printable, no slash, no dot or dash in front, ≤ 100 bytes"
        )
    return name


# Names become folders and files below results/.
FolderName = Annotated[str, AfterValidator(_folder_name)]
MAX_STEPS = 1000  # of the schedules that these models were trained on
T = TypeVar("T")


def digest(value: Any, length: int = 12) -> str:
    """The first `length` hex digits of the sha256 of `value`'s identity."""
    text = json.dumps(identity(value, in_keys=True), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Disturbance:
    """Biased Gaussian noise, z + bias + scale ε, added to the latents when a denoiser takes over.

    What the paper's Figure 1 does at chosen steps; it states neither bias nor scale.  ε is drawn
    from `seed`, the same for every prompt.
    """

    scale: Annotated[float, Field(ge=0)] = 0.3
    bias: float = 0.1
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Denoiser:
    """A model of the family plus what is attached to it.

    guidance_scale, negative_prompt and dtype are the family's own where None.
    dtype: of the model's weights and arithmetic.  batch_guidance: the conditional and the
    unconditional call as one batch, which changes bits and nothing else (a family that
    always does so refuses it).  attention: diffusers' name of a backend; torch's own
    choice where None.  With these a method can be a *scale row*: the reference run again
    in other arithmetic, which shows what a similarity means.
    disturb: noise that is added to the latents when it takes over.
    weights: a checkpoint or a LoRA in the place of the family's own weights of this model.
    attention_package: which version of which package the backend is, filled in by `check`.
    """

    model: Role
    accelerators: tuple[Any, ...] = ()
    guidance_scale: Annotated[float, Field(ge=0)] | None = None
    negative_prompt: str | None = None
    dtype: DType | None = None
    batch_guidance: bool = False
    attention: Attention | None = None
    disturb: Disturbance | None = None
    weights: OwnWeights | None = dataclasses.field(default=None, metadata={"if_set": True})
    # None for a backend of torch's own, whose version is in every key
    attention_package: str | None = dataclasses.field(default=None, metadata={"if_set": True})

    @property
    def name(self) -> str:
        """For readers.  Equal names need not be equal denoisers.

        >>> Denoiser(model="large", dtype="bfloat16", batch_guidance=True).name
        'large+bfloat16+batched'
        """
        own = [self.weights.short] if self.weights else []
        others: list[str | None] = [self.attention, self.dtype]
        others += ["batched" if self.batch_guidance else None, "disturbed" if self.disturb else None]
        return "+".join([self.model, *own, *(a.kind for a in self.accelerators), *(o for o in others if o)])

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages, with their versions, that its bits depend on beside those that all share."""
        lora = self.weights.lora if self.weights else None
        return tuple(p for p in (self.attention_package, lora.package if lora else None) if p)

    @property
    def id(self) -> str:
        """Name and short hash, for traces and readers; equal for equal denoisers."""
        return f"{self.name}#{digest(self, 8)}"

    @property
    def in_full(self) -> Denoiser:
        """The denoiser whose steps compute the same as those of this one that reuse nothing.

        Noise at a take-over, the strength of guidance and its text change no step's amount of work.
        """
        whole = all(getattr(a, "COMPUTES_IN_FULL", False) for a in self.accelerators)
        kept = () if whole else self.accelerators
        return replace(self, accelerators=kept, guidance_scale=None, negative_prompt=None, disturb=None)

    @property
    def digest(self) -> str:
        """Its name in keys: equal if and only if the denoisers are equal."""
        return digest(self, 64)


Solver = Literal["unipc", "euler", "dpm", "ddim"]
Timestep = Annotated[float, Field(gt=0, le=1000)]


def _falling(timesteps: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if timesteps is not None and any(a <= b for a, b in itertools.pairwise(timesteps)):
        raise ValueError("timesteps that fall, as [1000, 757, 522]")
    return timesteps


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sampling:
    """How a method steps from noise to a video; the family's own way in all that is None.

    solver: of the differential equation; a family has some of them.  shift, sigma_grid: of the noise
    schedule, as a family has them.  timesteps: what the model is told at each step, falling, in
    (0, 1000], in place of a schedule of so many steps: of step-distilled models.  Then there is
    nothing to shift.
    """

    solver: Solver | None = None
    shift: Annotated[float, Field(gt=0)] | None = None
    sigma_grid: Literal["wan", "diffusers"] | None = None
    timesteps: Annotated[
        Annotated[tuple[Timestep, ...], Field(min_length=1, max_length=MAX_STEPS)] | None,
        AfterValidator(_falling),
    ] = None

    @property
    def said(self) -> str:
        """For a reader.

        >>> Sampling(solver="euler", timesteps=(1000, 750, 500.5)).said
        'euler at timesteps 1000, 750, 500.5'
        >>> Sampling(solver="unipc", shift=8.0, sigma_grid="wan").said
        'unipc, shift 8, sigma grid wan'
        """
        if self.timesteps is not None:
            return f"{self.solver} at timesteps {', '.join(f'{t:g}' for t in self.timesteps)}"
        grid = f"sigma grid {self.sigma_grid}" if self.sigma_grid else None
        shift = f"shift {self.shift:g}" if self.shift else None
        return ", ".join(part for part in (self.solver, shift, grid) if part)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Segment:
    """One stretch of a path: a denoiser, and the rule that ends it."""

    denoiser: Denoiser
    until: Any


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Method:
    """A path, with a name for the configuration and a label for readers.

    steps: number of denoising steps; the family's own where None.  noise: `own` is that of
    the cell's seed, `partner` that of the other seed of its pair (0 and 1, 2 and 3, …), so
    that its similarity tells how far two seeds are apart.  role: a `scale` row is no rival.
    sampler: its solver and schedule, throughout its path; the family's where None.
    lacking: what this machine lacks to run it, and how to get it; then its cells are skipped.
    attached_late: the first two segments are one, see `paths.late_attach`.
    """

    name: FolderName
    label: str
    segments: tuple[Segment, ...]
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    noise: Literal["own", "partner"] = "own"
    role: Literal["method", "scale"] = "method"
    sampler: Sampling | None = dataclasses.field(default=None, metadata={"if_set": True})
    lacking: str = ""
    attached_late: bool = False

    @property
    def id(self) -> str:
        """Equal for two methods if and only if they are the same path from the same noise.

        Whatever version a package is of: that is in the keys of the method's videos.
        """
        return digest([[_asked(s) for s in self.segments], self.steps, self.noise, *self.own_sampler])

    @property
    def computes(self) -> dict[str, str]:
        """For its denoisers' ids, the plain ones of late attachment too, the id of `in_full` if another."""
        denoisers = [d for s in self.segments for d in (s.denoiser, replace(s.denoiser, accelerators=()))]
        return {d.id: d.in_full.id for d in denoisers if d != d.in_full}

    @property
    def own_sampler(self) -> tuple[Sampling, ...]:
        """Its part in keys: nothing where the sampler is the family's."""
        return () if self.sampler is None else (self.sampler,)

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages, with their versions, that its denoisers attend with or are fused by."""
        return tuple(dict.fromkeys(p for s in self.segments for p in s.denoiser.packages))

    def noise_seed(self, seed: int) -> int:
        """The number of the seed whose noise a cell of this number starts from.

        Pairs, and not the next seed of the suite, as they stay when a run gets more seeds.
        """
        return seed ^ 1 if self.noise == "partner" else seed


def _asked(segment: Segment) -> Segment:
    own = segment.denoiser.weights
    if own is not None and own.lora is not None:
        own = replace(own, lora=replace(own.lora, package=None))
    return replace(segment, denoiser=replace(segment.denoiser, attention_package=None, weights=own))


_WINDOW = re.compile(r"window\((\d{1,4}), ?(\d{1,4})\)")


def kept_steps(keep: str) -> tuple[int, int]:
    """After which steps, first and last, every state of a path's first segment is kept.

    >>> kept_steps("window(6,20)"), kept_steps("forks")
    ((6, 20), (1, 0))
    """
    if keep == "all":
        return 1, 1_000_000
    window = _WINDOW.fullmatch(keep)
    return (int(window[1]), int(window[2])) if window else (1, 0)


def _known_keep(keep: str) -> str:
    first, last = kept_steps(keep)
    if keep not in ("forks", "all", "none") and not 1 <= first <= last:
        raise ValueError("forks, all, none or window(a,b) with 1 ≤ a ≤ b")
    return keep


Keep = Annotated[str, AfterValidator(_known_keep)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Experiment:
    """What to run: a family, a suite, methods, metrics, and where.

    keep: the states that are stored for runs to come; see `sampling.memory.StoredMemory`.
    plugins: Python files with plug-ins of one's own, which every process loads first.
    """

    name: FolderName
    family: Any
    suite: Any
    methods: tuple[Method, ...]
    metrics: tuple[Any, ...]
    engine: Any
    reference: str = "large"
    late_attach: bool = True
    keep: Keep = "forks"
    retry_failed: bool = False
    plugins: tuple[str, ...] = ()

    def method(self, name: str) -> Method:
        return next(m for m in self.methods if m.name == name)


_DENOISER_KEYS = (
    "model",
    "accelerators",
    "guidance_scale",
    "negative_prompt",
    "dtype",
    "batch_guidance",
    "attention",
    "disturb",
    "weights",
)
METHOD_KEYS = ("label", "path", "steps", "noise", "role", "sampler")
SCALARS = ("name", "late_attach", "keep", "retry_failed", "plugins")
KEYS = (*SCALARS, "family", "suite", "method", "metric", "engine", "reference")


def _mapping(value: Any, where: str, mistakes: Mistakes) -> Mapping[str, Any]:
    """`value` if it maps names to settings; else a mistake, and nothing."""
    if value is None or isinstance(value, Mapping):
        return value or {}
    mistakes.note(f"{where} = {value!r}", "keys with values", f"see the YAML files of conf/{where}")
    return {}


def _named(plain: Mapping[str, Any], group: str, mistakes: Mistakes) -> Mapping[str, Any]:
    """A group's settings by name; one mistake for all that stand there without one."""
    named = _mapping(plain.get(group), group, mistakes)
    loose = {n: v for n, v in named.items() if v is not None and not isinstance(v, Mapping)}
    if loose:
        mistakes.note(
            ", ".join(f"{group}.{n} = {v!r}" for n, v in loose.items()),
            f"settings below a name, {group}.NAME, each with its keys",
            f"in a YAML of your own let the first line be `# @package {group}.NAME`",
        )
    return {n: v for n, v in named.items() if n not in loose}


def read_segment(plain: Any, where: str, mistakes: Mistakes) -> Segment | None:
    """One entry of a method's `path`: a denoiser's keys and `until`."""
    if not isinstance(plain, Mapping):
        mistakes.note(f"{where} = {plain!r}", "a segment", f"write {{model: {plain}}}")
        return None
    before = len(mistakes.found)
    for key in (k for k in plain if k not in (*_DENOISER_KEYS, "until")):
        mistakes.note(
            f"key {where}.{key}", "a key of a segment", did_you_mean(key, [*_DENOISER_KEYS, "until"])
        )
    listed = plain.get("accelerators")
    listed = () if listed is None else listed
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        mistakes.note(f"{where}.accelerators = {listed!r}", "a list", f"write [{{kind: {listed}}}]")
        listed = ()
    attached = [
        mistakes.attempt(lambda i=i, a=a: build("accelerators", a, f"{where}.accelerators.{i}"))  # type: ignore[misc]
        for i, a in enumerate(listed)
    ]
    _check_together([a for a in attached if a], where, mistakes)
    until = plain.get("until")
    until = {"kind": "always"} if until is None else until
    rule = mistakes.attempt(lambda: build("rules", until, f"{where}.until"))
    fields = {k: plain[k] for k in _DENOISER_KEYS if k in plain and k not in ("accelerators", "weights")}
    if (own := plain.get("weights")) is not None:
        lora = _nested(LoRA, own, "lora", f"{where}.weights", mistakes) if isinstance(own, Mapping) else None
        own = {**own, "lora": lora} if isinstance(own, Mapping) else own
        fields["weights"] = _nested(OwnWeights, {"weights": own}, "weights", where, mistakes)
    denoiser = mistakes.attempt(
        lambda: _typed(Denoiser, fields | {"accelerators": tuple(a for a in attached if a)}, where)
    )
    if rule is None or denoiser is None or len(mistakes.found) > before:
        return None
    return Segment(denoiser=denoiser, until=rule)


def _check_together(accelerators: Sequence[Any], where: str, mistakes: Mistakes) -> None:
    """What cannot be attached to one denoiser together, with the reason."""
    kinds = [a.kind for a in accelerators]
    for kind in sorted({k for k in kinds if kinds.count(k) > 1}):
        mistakes.note(
            f"{where}.accelerators: {kind} {kinds.count(kind)} times",
            "each accelerator once: the second would cache what the first has cached",
            "leave one out",
        )
    for accelerator in accelerators:
        excluded = getattr(accelerator, "EXCLUDES", {})
        for other in sorted(set(excluded) & set(kinds)):
            mistakes.note(
                f"{where}.accelerators: {accelerator.kind} with {other}",
                f"one of them: {excluded[other]}",
                "leave one out, or give each a segment of its own",
            )


def _typed(cls: type[T], fields: Mapping[str, Any], where: str) -> T:
    from pydantic import TypeAdapter, ValidationError

    from srbench.config.registry import explain

    try:
        return TypeAdapter(cls).validate_python(dict(fields))
    except ValidationError as error:
        raise UserErrors(explain(error, where, [f.name for f in dataclasses.fields(cls)])) from None  # type: ignore[arg-type]


def _nested(cls: type[T], plain: Mapping[str, Any], key: str, where: str, mistakes: Mistakes) -> T | None:
    """A setting that is a mapping itself, with its own keys told where one is wrong; None where unset."""
    value = plain.get(key)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        known = ", ".join(f.name for f in dataclasses.fields(cls))  # type: ignore[arg-type]
        mistakes.note(f"{where}.{key} = {value!r}", "keys with values", f"known: {known}")
        return None
    return mistakes.attempt(lambda: _typed(cls, value, f"{where}.{key}"))


def read_method(name: str, plain: Any, mistakes: Mistakes) -> Method | None:
    """One method's YAML.  Further scalar keys are its parameters, used inside its path."""
    where = f"method.{name}"
    plain = _mapping(plain, where, mistakes)
    path = plain.get("path")
    if not isinstance(path, (list, tuple)) or not path:
        mistakes.note(f"{where}.path = {path!r}", "a list of segments", f"give {where} a path")
        return None
    for key, value in plain.items():
        if key not in METHOD_KEYS and isinstance(value, (dict, list)):
            mistakes.note(
                f"key {where}.{key}",
                f"{', '.join(METHOD_KEYS)} or a plain parameter",
                did_you_mean(key, METHOD_KEYS),
            )
    segments = [read_segment(s, f"{where}.path.{i}", mistakes) for i, s in enumerate(path)]
    for i, segment in enumerate(segments[:-1]):
        if segment is not None and segment.until.kind == "always":
            mistakes.note(
                f"{where}.path.{i}.until is missing",
                "a rule that ends it, for another segment follows",
                f"give {where}.path.{i} an until, as {{kind: fixed_step, step: 10}}",
            )
    before = len(mistakes.found)
    sampler = _nested(Sampling, plain, "sampler", where, mistakes)
    if None in segments or len(mistakes.found) > before:
        return None
    fields = {
        "name": name,
        "label": name if plain.get("label") is None else plain["label"],
        "segments": tuple(segments),
        "sampler": sampler,
        **{key: plain[key] for key in ("steps", "noise", "role") if key in plain},
    }
    method = mistakes.attempt(lambda: _typed(Method, fields, where))
    return None if method is None else _in_its_timesteps(method, where, mistakes)


def _in_its_timesteps(method: Method, where: str, mistakes: Mistakes) -> Method:
    """The method with as many steps as its sampler lists timesteps."""
    listed = method.sampler.timesteps if method.sampler else None
    if listed is None:
        return method
    if method.steps not in (None, len(listed)):
        mistakes.note(
            f"{where}.steps = {method.steps} with {len(listed)} timesteps in {where}.sampler",
            "one step a timestep",
            f"leave {where}.steps out",
        )
    return replace(method, steps=len(listed))


def _settle(method: Method, family: Any, mistakes: Mistakes) -> Method:
    """The method with what its family fills in; what the family cannot run is a mistake.

    What only this machine cannot run is none: its cells are skipped, and the plan says so.
    """
    segments, lacking = [], dict[str, None]()
    for i, segment in enumerate(method.segments):
        where = f"method.{method.name}.path.{i}"
        mistakes.found += family.objections(segment.denoiser, where)
        lacking |= {f"needs {m.expected}: {m.do}": None for m in family.lacking(segment.denoiser, where)}
        settled = family.settled(segment.denoiser)
        package = attention.installed(settled.attention)
        segments.append(replace(segment, denoiser=replace(settled, attention_package=package)))
    denoisers, rules = [s.denoiser for s in segments], [s.until for s in segments]
    mistakes.found += family.objections_to_path(denoisers, rules, f"method.{method.name}")
    mistakes.found += family.objections_to_steps(method.steps, f"method.{method.name}.steps")
    sampler = method.sampler
    if sampler is not None:
        mistakes.found += family.objections_to_sampler(sampler, f"method.{method.name}.sampler")
        sampler = family.settled_sampler(sampler)
    return replace(method, segments=tuple(segments), sampler=sampler, lacking="; ".join(lacking))


def _check_names(methods: Sequence[Method], reference: Any, metrics: bool, mistakes: Mistakes) -> None:
    """There are methods, the reference is one of them, and a reader can tell them apart."""
    names = [m.name for m in methods]
    if not names:
        mistakes.note("no method", "at least one", "try 'method=[large,srdiffusion]'")
    elif reference not in names and metrics:
        mistakes.note(
            f"methods {', '.join(names)}",
            f"the reference {reference!r} among them, which similarity is measured against",
            f"add it, as in 'method=[{reference},{names[0]}]', or leave metrics out: 'metric=[]'",
        )
    for method in methods:
        if method.lacking and method.name == reference and metrics:
            mistakes.note(f"the reference {method.name}", "a method that can run here", method.lacking)
        names_of_it = [m.name for m in methods if m.id == method.id]
        if names_of_it[0] != method.name:
            mistakes.note(
                f"methods {' and '.join(names_of_it)}",
                "a path of its own for each",
                f"leave {method.name} out",
            )
    for label in sorted({m.label for m in methods}):
        twins = [m for m in methods if m.label == label]
        if len({m.id for m in twins}) > 1:
            mistakes.note(
                f"label {label!r} of {' and '.join(m.name for m in twins)}",
                "a label of its own for each path",
                f"set method.{twins[-1].name}.label",
            )


def _check_switches(method: Method, family: Any, mistakes: Mistakes) -> None:
    """Every segment can be left before the schedule ends; else the next is never walked."""
    timesteps = family.timesteps(method.steps, method.sampler)
    for i, segment in enumerate(method.segments[:-1]):
        if segment.until.window(timesteps)[0] >= len(timesteps):
            settings = ", ".join(f"{k}: {v}" for k, v in identity(segment.until).items())
            mistakes.note(
                f"method.{method.name}.path.{i}.until = {{{settings}}}",
                f"a rule that can fire before the last of {len(timesteps)} steps",
                "let it fire earlier, raise family.steps, or leave the method out",
            )


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


def _files(plain: Any) -> list[str]:
    if isinstance(plain, (list, tuple)) and all(isinstance(p, str) for p in plain):
        return list(plain)
    if plain is None:
        return []
    raise UserError(f"plugins = {plain!r}", "a list of Python files", "write 'plugins=[my_method.py]'")


def _at_fps(metric: Any, family: Any) -> Any:
    """A metric of encoded videos at the family's frames a second, where it leaves them open."""
    fps = getattr(family, "fps", None)
    return metric.at_fps(fps) if fps and hasattr(metric, "at_fps") else metric


def check(plain: Mapping[str, Any]) -> Experiment:
    """Plain data → Experiment.  Raises UserErrors with every mistake found."""
    mistakes = Mistakes()
    for key in (k for k in plain if k not in KEYS):
        mistakes.note(f"key {key}", "a key of an experiment", did_you_mean(key, KEYS))
    # first, since all else may be made of what they bring
    mistakes.attempt(lambda: load(_files(plain.get("plugins"))))
    asked = {n: m for n, m in _named(plain, "method", mistakes).items() if m is not None}
    methods = [read_method(n, m, mistakes) for n, m in asked.items()]
    metrics = [
        mistakes.attempt(lambda n=n, m=m: build("metrics", m, f"metric.{n}"))  # type: ignore[misc]
        for n, m in _named(plain, "metric", mistakes).items()
    ]
    parts = {
        group: mistakes.attempt(lambda g=group, k=kind: build(k, _or_empty(plain.get(g)), g))  # type: ignore[misc]
        for group, kind in (("family", "families"), ("suite", "suites"), ("engine", "engines"))
    }
    fields = {k: plain[k] for k in (*SCALARS, "reference") if k in plain}
    empty: dict[str, Any] = {"family": None, "suite": None, "engine": None, "methods": (), "metrics": ()}
    mistakes.attempt(lambda: _typed(Experiment, empty | fields, ""))
    sound = [m for m in methods if m]
    family = parts["family"]
    if family is not None:
        mistakes.found += family.unfit()
        metrics = [_at_fps(m, family) for m in metrics]
        sound = [_settle(m, family, mistakes) for m in sound]
        for method in sound:
            _check_switches(method, family, mistakes)
    if len(sound) == len(methods):
        _check_names(sound, plain.get("reference", "large"), bool(metrics), mistakes)
    fields |= parts | {"methods": tuple(sound), "metrics": tuple(metrics)}
    made = None if mistakes.found else mistakes.attempt(lambda: _typed(Experiment, fields, ""))
    mistakes.stop_if_any()
    assert made is not None
    return made
