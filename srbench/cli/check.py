"""`srbench check KIND [--plugins FILE]`: does a plug-in keep the rules ours keep?

Every rule says why it matters; a failure names the rule and what was seen.  Accelerators and
families are tried on a real family (`--family`, the embedded one by default) at a few steps,
switch rules on made-up traces, metrics on made-up videos.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from srbench import errors
from srbench.cli.check_lab import (
    PROMPT,
    STEPS,
    Lab,
    Subject,
    Violation,
    computed,
    family_settings,
    path,
    same,
)
from srbench.config import registry, yaml_files
from srbench.config.experiment import Denoiser, Method, digest
from srbench.errors import UserError, UserErrors, did_you_mean
from srbench.trace import Step, Trace

if TYPE_CHECKING:
    pass

# -- rules for every plug-in


def settings_name_it(subject: Subject) -> None:
    """Its fields are its YAML: the key of a video, the record and the log come from them alone."""
    made = subject.make()
    again = {k: v for k, v in registry.identity(made).items() if k != "source"}
    try:
        json.dumps(again)
    except TypeError as error:
        raise Violation(f"its settings are no plain data: {error}") from None
    # by their hash, which is the name: 1 and 1.0 are equal and have two
    if digest(registry.build(subject.group, again, subject.group)) != digest(made):
        raise Violation(f"built again from its own settings {again} it is another")


def settings_are_frozen(subject: Subject) -> None:
    """A plug-in that changes while it runs has no name any more."""
    made = subject.make()
    name = next(iter(vars(made)), "anything")
    try:
        setattr(made, name, None)
    except (AttributeError, TypeError):
        return
    raise Violation(f"{name} can be set after it was made; decorate the class with @plugin_of")


def unknown_settings_are_refused(subject: Subject) -> None:
    """A misspelt key that is ignored costs a night and is found in no table."""
    try:
        registry.build(subject.group, {**subject.settings, "no_such_key": 1}, subject.group)
    except (UserError, UserErrors):
        return
    raise Violation("it takes the key no_such_key")


def wrong_types_are_refused(subject: Subject) -> None:
    """A setting of the wrong type must be told at the door, not after the first video."""
    for name in vars(subject.make()):
        try:
            registry.build(subject.group, {**subject.settings, name: {"no": ["such", object]}}, subject.group)
        except (UserError, UserErrors):
            continue
        raise Violation(f"it takes a mapping for {name}; give the field a type")


# -- accelerators


def _accelerated(subject: Subject) -> Denoiser:
    return Denoiser(model="large", accelerators=(subject.make(),))


def leaves_the_model_as_it_was(subject: Subject) -> None:
    """The next method uses the same model; what stays attached spoils its videos silently."""
    lab = subject.lab
    before = lab.plain
    lab.walk(path("accelerated", (_accelerated(subject), None)))
    after = lab.walk(path("plain", (Denoiser(model="large"), None)))["plain"]
    if not same(before, after):
        raise Violation("the plain model's latents changed after it had been attached and taken off")


def leaves_the_model_after_an_error(subject: Subject) -> None:
    """A video that fails must not take the following ones with it."""
    lab = subject.lab
    denoiser = _accelerated(subject)
    try:
        with lab.sampler.attach(denoiser, lab.steps):
            lab.sampler.step(denoiser, lab.sampler.start(0, None), lab.text)
            raise KeyError("on purpose")
    except KeyError:
        pass
    after = lab.walk(path("plain", (Denoiser(model="large"), None)))["plain"]
    if not same(lab.plain, after):
        raise Violation("after an error inside `attach` the plain model's latents are others")


def is_deterministic_and_starts_afresh(subject: Subject) -> None:
    """A cache that outlives its video makes results depend on the order of the prompts."""
    lab = subject.lab
    method = path("accelerated", (_accelerated(subject), None))
    first = lab.walk(method)["accelerated"]
    lab.walk(method, seed=1)
    again = lab.walk(method)["accelerated"]
    if not same(first, again):
        raise Violation("the same prompt and seed gave other latents after another video")


def survives_a_fork(subject: Subject) -> None:
    """Methods share the steps they have in common; a branch must be the method run alone."""
    lab = subject.lab
    k = lab.steps // 2
    mine = path("mine", (Denoiser(model="large"), k), (_accelerated(subject), None))
    other = path("other", (Denoiser(model="large"), k), (Denoiser(model="small"), None))
    alone = lab.walk(mine)["mine"]
    shared = lab.walk(path("plain", (Denoiser(model="large"), None)), other, mine)["mine"]
    if not same(alone, shared):
        raise Violation(f"attached from step {k} it gives other latents when it shares steps with others")


def survives_freezing(subject: Subject) -> None:
    """A run that was killed goes on from a state in the store."""
    lab, k = subject.lab, subject.lab.steps // 2
    denoiser = _accelerated(subject)
    state = lab.sampler.start(0, None)
    for _ in range(k):
        state, _record = lab.sampler.step(Denoiser(model="large"), state, lab.text)
    frozen, meta = lab.sampler.freeze(state)
    ends = []
    for begin in (state, lab.sampler.thaw(frozen, meta)):
        with lab.sampler.attach(denoiser, lab.steps):
            while not begin.done:
                begin, _record = lab.sampler.step(denoiser, begin, lab.text)
        ends.append(begin.latents)
    if not bool((ends[0] == ends[1]).all()):
        raise Violation(f"from a state stored at step {k} it gives other latents")


def reports_what_it_reused(subject: Subject) -> None:
    """Evaluations computed and reused are columns of the table, and what a plan reckons with."""
    lab = subject.lab
    end = lab.walk(path("accelerated", (_accelerated(subject), None)))["accelerated"]
    calls = lab.sampler.calls_per_step(Denoiser(model="large"))
    reused = sum(s.calls_reused + s.modules_reused for s in end.trace.steps)
    if any(s.calls_computed + s.calls_reused != calls for s in end.trace.steps):
        raise Violation(f"calls computed and reused do not add up to the {calls} of every step")
    if same(end, lab.plain) and reused:
        raise Violation(f"it tallied {reused} reuses and changed no bit")
    if not same(end, lab.plain) and not reused and subject.make().expects_reuse(_times(lab)):
        raise Violation("it changed the latents and tallied no reuse: attachment.tally_call, tally_module")


def tallies_what_it_computed(subject: Subject) -> None:
    """A row's evaluations are what readers compare; reuse that nobody counted looks like a dearer method."""
    lab = subject.lab
    model = lab.sampler.model("large")
    with computed(model) as plain:
        lab.walk(path("plain", (Denoiser(model="large"), None)))
    with computed(model) as own:
        end = lab.walk(path("accelerated", (_accelerated(subject), None)))["accelerated"]
    told = sum(s.calls_computed for s in end.trace.steps)
    if own.evaluations != told:
        raise Violation(
            f"the model's blocks ran in {own.evaluations} evaluations, and {told} are tallied as computed: "
            "attachment.tally_call(reused=True) for each that is replaced, and for no other"
        )
    if any(s.modules_reused for s in end.trace.steps):
        return
    # whole blocks first, then what is in them
    for name, runs in sorted(plain.parts.items(), key=lambda part: part[0].count(".")):
        expected = runs * told // plain.evaluations
        if own.parts[name] < expected:
            seen = f"{name} ran {own.parts[name]} times in {told} evaluations, not {expected}"
            raise Violation(f"{seen}, and no reuse is tallied: attachment.tally_module(reused=True)")


def inert_steps_are_inert(subject: Subject) -> None:
    """Until there a method walks with the plain model, so that the steps are computed once."""
    lab, made = subject.lab, subject.make()
    calls = lab.sampler.calls_per_step(Denoiser(model="large"))
    at = made.inert_steps(_times(lab), calls, lab.steps - 1)
    if not 0 <= at <= lab.steps - 1:
        raise Violation(f"inert_steps gave {at}, which is not from 0 to {lab.steps - 1}")
    if at == 0:
        return
    whole = lab.walk(path("whole", (_accelerated(subject), None)))["whole"]
    late = lab.walk(path("late", (Denoiser(model="large"), at), (_accelerated(subject), None)))["late"]
    if not same(whole, late):
        raise Violation(f"it says that {at} steps are inert; attached after them it gives other latents")


def _times(lab: Lab) -> tuple[float, ...]:
    return lab.family.timesteps(None)


# -- switch rules


def made_up_traces(steps: int = STEPS) -> Iterator[Trace]:
    """Traces as models give them (D falls and settles), and as they never should (flat, wild, NaN)."""
    rng = np.random.default_rng(0)
    falling = 0.6 * np.exp(-np.arange(steps) / 4) + 0.01
    for change in (
        falling,
        falling * rng.uniform(0.9, 1.1, steps),
        np.full(steps, 0.3),
        rng.uniform(0, 1, steps),
        np.full(steps, np.nan),
    ):
        made = Trace()
        for i in range(steps):
            now = dict.fromkeys(("model_output", "x0", "eps", "latent"), float(change[i])) if i else None
            t = 1000.0 * (1 - i / steps)
            made = made.then(
                Step(
                    index=i,
                    timestep=t,
                    next_timestep=1000.0 * (1 - (i + 1) / steps),
                    sigma=t / 1000,
                    denoiser="large#00000000",
                    model="large",
                    change=now,
                    calls_computed=2,
                    calls_reused=0,
                    modules_computed=0,
                    modules_reused=0,
                )
            )
        yield made


def answers_yes_or_no(subject: Subject) -> None:
    """A rule is asked after every step; whatever the trace holds, it has an answer."""
    rule = subject.make()
    for trace in made_up_traces():
        for executed in range(1, len(trace)):
            for entered in (0, executed // 2):
                answer = rule.fires(trace.until(executed), entered)
                if not isinstance(answer, (bool, np.bool_)):
                    raise Violation(f"fires gave {answer!r}, neither True nor False")


def is_a_pure_function(subject: Subject) -> None:
    """A rule is replayed on stored traces, to choose δ with no model at hand."""
    for trace in made_up_traces():
        kept, fresh = subject.make(), subject.make()
        forward = [kept.fires(trace.until(i), 0) for i in range(1, len(trace))]
        backward = [fresh.fires(trace.until(i), 0) for i in reversed(range(1, len(trace)))]
        if forward != backward[::-1]:
            raise Violation("asked about the same traces in another order it gave other answers")


def attached_late_it_fires_at_the_same_step(subject: Subject) -> None:
    """Methods share the steps before an accelerator acts; that must not move a switch."""
    from srbench.sampling.paths import late_attach

    pab = registry.build("accelerators", {"kind": "pab", "timestep_range": [100, 500]}, "accelerators")
    accelerated = Denoiser(model="large", accelerators=(pab,))
    whole = path("whole", (accelerated, None), (Denoiser(model="small"), None))
    rule = subject.make()
    whole = replace(whole, segments=(replace(whole.segments[0], until=rule), whole.segments[1]))
    for trace in made_up_traces():
        times = [s.timestep for s in trace.steps]
        a, b = _left_at(whole, trace), _left_at(late_attach(whole, times, 2), trace)
        # before its window it is not asked there: what window_is_honest is about
        if a != b and (a is None or a >= rule.window(times)[0]):
            raise Violation(f"it fired after {a} steps, and with its accelerator attached late after {b}")


def _left_at(method: Method, trace: Trace) -> int | None:
    """After how many steps a method is in its last segment, were this its trace."""
    from srbench.sampling.walk import Traveller

    traveller, last = Traveller(method), len(method.segments) - 1
    for executed in range(1, len(trace)):
        if traveller.leaves(trace.until(executed)):
            traveller = traveller.move_on(executed)
        if traveller.segment == last:
            return executed
    return None


def window_is_honest(subject: Subject) -> None:
    """A plan's price, and how long methods may share steps, rest on when a rule can fire."""
    from srbench.rules.base import replay

    rule = subject.make()
    for trace in made_up_traces():
        times = [s.timestep for s in trace.steps]
        earliest, latest = rule.window(times)
        if not 1 <= earliest <= latest <= len(times):
            raise Violation(f"window gave {earliest}, {latest} for {len(times)} steps")
        at = replay(rule, trace)
        if at is not None and at < earliest:
            raise Violation(f"it fired after {at} steps; its window begins at {earliest}")
        if latest < len(times) and (at is None or at > latest):
            raise Violation(f"it fired after {at} steps; its window ends at {latest}")
        assumed = rule.expected(times)[0]
        if not earliest <= assumed <= latest:
            raise Violation(f"a plan would assume step {assumed}, outside its window {earliest} to {latest}")


# -- metrics


def _videos() -> tuple[np.ndarray, np.ndarray]:
    from srbench.shapes.render import render
    from srbench.shapes.world import parse

    video = render(parse(PROMPT), 0)
    noise = np.random.default_rng(0).normal(0, 12, video.shape)
    return video, np.clip(video + noise, 0, 255).astype(np.uint8)


def _metric(subject: Subject) -> Any:
    """The metric of videos with 8 frames a second, as an experiment completes it."""
    metric = subject.make()
    return metric.at_fps(8.0) if hasattr(metric, "at_fps") else metric


def _facts(metric: Any) -> Mapping[str, Any]:
    from srbench.metrics.base import facts

    return facts(metric, PROMPT)


def _values(metric: Any, video: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
    from srbench.metrics.base import has_dimensions

    if has_dimensions(metric):
        return {n: np.atleast_1d(v) for n, v in metric(video, PROMPT).items()}
    return {metric.facts.name: metric(video, reference)}


def values_lie_in_their_bounds(subject: Subject) -> None:
    """A table's reader, and every figure's axis, trust the bounds that a metric states."""
    metric = _metric(subject)
    video, noisy = _videos()
    for other in (video, noisy, 255 - video):
        for name, values in _values(metric, other, video).items():
            own = _facts(metric)[name]
            low = -np.inf if own.lower_bound is None else own.lower_bound
            high = np.inf if own.upper_bound is None else own.upper_bound
            if not (np.isfinite(values).all() and (values >= low).all() and (values <= high).all()):
                raise Violation(
                    f"{name} gave {values.min():g} to {values.max():g}; it states {low:g} to {high:g}"
                )


def gives_what_it_names(subject: Subject) -> None:
    """A score that is missing or unnamed would be lost, or computed again at every start."""
    metric = _metric(subject)
    video, noisy = _videos()
    values = _values(metric, noisy, video)
    if set(values) != set(_facts(metric)):
        raise Violation(f"it gave {sorted(values)} and names {sorted(_facts(metric))}")
    if not all(
        own.needs_reference is False or len(values[n]) == len(video) for n, own in _facts(metric).items()
    ):
        raise Violation(f"not one value for each of {len(video)} frames")


def the_same_videos_give_the_same_numbers(subject: Subject) -> None:
    """Scores are stored and never taken twice."""
    metric = _metric(subject)
    video, noisy = _videos()
    before = noisy.copy()
    first, again = _values(metric, noisy, video), _values(_metric(subject), noisy, video)
    if any(not np.array_equal(first[n], again[n]) for n in first):
        raise Violation("a second time it gave other numbers")
    if not np.array_equal(before, noisy):
        raise Violation("it wrote into the video")


def noise_makes_it_worse(subject: Subject) -> None:
    """The direction that a metric states decides which method is marked best."""
    metric = _metric(subject)
    video, noisy = _videos()
    clean, worse = _values(metric, video, video), _values(metric, noisy, video)
    signed = {n: (1 if own.higher_is_better else -1) for n, own in _facts(metric).items()}
    gains = {n: signed[n] * float(np.mean(worse[n]) - np.mean(clean[n])) for n in clean}
    if not any(g < 0 for g in gains.values()) or any(g > 0.01 for g in gains.values()):
        raise Violation(f"noise of σ = 12 levels changed it by {gains}, for the better counted positive")


def other_shapes_are_refused(subject: Subject) -> None:
    """Cut or resized silently, a number changes without its name changing."""
    from srbench.metrics.base import has_dimensions

    metric = _metric(subject)
    video, noisy = _videos()
    wrongs = [noisy.astype(np.float32) / 255, noisy[..., 0]]
    if not has_dimensions(metric):  # against a reference, another size is wrong too
        wrongs.append(noisy[:, :32])
    for wrong in wrongs:
        try:
            _values(metric, wrong, video)
        except (UserError, UserErrors):
            continue
        raise Violation(f"it took {wrong.dtype} {wrong.shape}")


# -- suites


def lists_prompts_and_seeds(subject: Subject) -> None:
    """A cell is a prompt and a seed; a repeated one would count twice."""
    suite = subject.make()
    prompts, seeds = suite.list_prompts(), suite.list_seeds()
    if not prompts or not seeds:
        raise Violation(f"{len(prompts)} prompts, {len(seeds)} seeds")
    if len(set(prompts)) != len(prompts) or len(set(seeds)) != len(seeds):
        raise Violation("a prompt or a seed is there twice")
    if any(not isinstance(p, str) or not p.strip() for p in prompts):
        raise Violation("a prompt is no text")
    if any(not isinstance(s, int) or s < 0 for s in seeds):
        raise Violation("a seed is no whole number from 0 on")
    if subject.make().list_prompts() != prompts:
        raise Violation("asked again it lists other prompts")


# -- families


def _own_lab(subject: Subject) -> Lab:
    lab = Lab(subject.lab.family_name, 8, subject.lab.scale)
    lab.__dict__["family"] = replace(subject.make(), steps=8)
    return lab


def says_its_timesteps_without_a_model(subject: Subject) -> None:
    """A dry run prices a sweep in seconds, on a machine that could never run it."""
    lab = _own_lab(subject)
    told = lab.family.timesteps(None)
    if list(told) != sorted(told, reverse=True) or len(told) != 8:
        raise Violation(f"timesteps do not fall, or are not as many as the steps: {told}")
    if tuple(told) != tuple(lab.sampler.timesteps(None)):
        raise Violation("the sampler walks other timesteps than the settings say")


def a_fork_is_the_method_alone(subject: Subject) -> None:
    """Methods share the steps they have in common; a branch must be the method run alone."""
    lab = _own_lab(subject)
    large, small = Denoiser(model="large"), Denoiser(model="small")
    switches = [path(f"k{k}", (large, k), (small, None)) for k in (2, 5)]
    together = lab.walk(path("plain", (large, None)), *switches)
    for method in switches:
        if not same(together[method.name], lab.walk(method)[method.name]):
            raise Violation(f"the switch {method.name} has other latents among others than alone")


def a_state_survives_freezing(subject: Subject) -> None:
    """A run that was killed goes on from a state in the store, to the same bits."""
    lab = _own_lab(subject)
    large = Denoiser(model="large")
    end = lab.walk(path("plain", (large, None)))["plain"].state
    for k in range(1, 8):
        state = lab.sampler.start(0, None)
        for i in range(8):
            if i == k:
                state = lab.sampler.thaw(*lab.sampler.freeze(state))
            state, _record = lab.sampler.step(large, state, lab.text)
        if not bool((state.latents == end.latents).all()):
            raise Violation(f"a state frozen after {k} steps leads to other latents")


Rule = Callable[[Subject], None]
EVERY: tuple[Rule, ...] = (
    settings_name_it,
    settings_are_frozen,
    unknown_settings_are_refused,
    wrong_types_are_refused,
)
RULES: Mapping[str, tuple[Rule, ...]] = {
    "accelerators": (
        leaves_the_model_as_it_was,
        leaves_the_model_after_an_error,
        is_deterministic_and_starts_afresh,
        survives_a_fork,
        survives_freezing,
        reports_what_it_reused,
        tallies_what_it_computed,
        inert_steps_are_inert,
    ),
    "rules": (
        answers_yes_or_no,
        is_a_pure_function,
        attached_late_it_fires_at_the_same_step,
        window_is_honest,
    ),
    "metrics": (
        values_lie_in_their_bounds,
        gives_what_it_names,
        the_same_videos_give_the_same_numbers,
        noise_makes_it_worse,
        other_shapes_are_refused,
    ),
    "suites": (lists_prompts_and_seeds,),
    "families": (says_its_timesteps_without_a_model, a_fork_is_the_method_alone, a_state_survives_freezing),
    "engines": (),
}


def rules(group: str) -> tuple[Rule, ...]:
    """All rules for a group of plug-ins."""
    return (*EVERY, *RULES[group])


def try_rule(rule: Rule, subject: Subject) -> str | None:
    """What was seen where a rule is not kept; None where it is.

    An error of the plug-in's own is a violation too, told with its last line of code.
    """
    try:
        rule(subject)
    except Violation as seen:
        return str(seen)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
    return None


def conform(subject: Subject, out: Callable[[str], None] = print) -> int:
    """Try every rule and tell of each.  Returns how many are not kept."""
    broken = 0
    for rule in rules(subject.group):
        seen = try_rule(rule, subject)
        name = rule.__name__.replace("_", " ")
        if seen is None:
            out(f"  kept        {name}")
            continue
        broken += 1
        out(f"  NOT KEPT    {name}\n              seen: {seen}\n              why it matters: {rule.__doc__}")
    return broken


def subjects(kind: str, settings: Mapping[str, Any], lab: Lab) -> list[Subject]:
    """All plug-ins of a kind, and the family of conf/family/ by that name.

    Raises UserError where there is none.
    """
    made = []
    for group in registry.GROUPS:
        if group == "families" and kind in yaml_files.names("family"):
            made.append(Subject(group, {**family_settings(kind, lab.scale), **settings}, lab))
        elif kind in registry.known(group):
            made.append(Subject(group, {"kind": kind, **settings}, lab))
    if not made:
        every = [k for g in registry.GROUPS for k in registry.known(g)]
        raise UserError(
            f"plug-in {kind!r}",
            "a kind that srbench knows, or a family of conf/family/",
            did_you_mean(kind, [*every, *yaml_files.names("family")]),
        )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 where every rule is kept, 1 where one is not."""
    parser = errors.Parser(prog="srbench check", description=__doc__)
    parser.add_argument("kind", help="as in the YAML: pab, srdiffusion, the name of your file; or a family")
    parser.add_argument("--plugins", nargs="*", default=[], help="Python files of your own")
    parser.add_argument("--settings", default="{}", help="its settings as YAML, as '{threshold: 0.1}'")
    parser.add_argument("--family", default="shapes", help="what accelerators are tried on")
    parser.add_argument("--scale", choices=["full", "tiny"], default="full", help="tiny: random weights")
    args = parser.parse_args(arguments)
    registry.load(args.plugins)
    settings = yaml_files.parse(args.settings, "--settings")
    broken = 0
    for subject in subjects(args.kind, settings, Lab(args.family, scale=args.scale)):
        print(f"{args.kind} ({subject.group}):")
        subject.make()
        broken += conform(subject)
    print(f"{broken} rules are not kept" if broken else "every rule is kept")
    return int(bool(broken))


if __name__ == "__main__":
    errors.finish(main)
