"""Races of what needs no training: networks on fresh weights, and operators alone."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.network import backbone_of, options_of
from bench.config.schema import HostConfig, OperatorConfig
from bench.config.speed import SpeedConfig
from bench.config.trust import refuse_code
from bench.errors import UserError
from bench.record import Entry
from bench.run.code import operator_sha256
from bench.run.describe import entry_of_network
from bench.run.race import Contender, Race, Timed, device_of, form_of
from bench.speed.protocol import Scope
from bench.store import Store

if TYPE_CHECKING:
    from bench.speed import Shape

LAYER = "layer"
"""What stands for a host in the entry of an operator that is timed alone."""


def networks_race(
    networks: Sequence[tuple[Entry, Mapping[str, Any]]],
    scope: Scope,
    plan: SpeedConfig,
    *,
    host: str,
    words: str,
    suite: str | None = None,
) -> Race:
    """Return a race of networks on noise, image to feature pyramid, with fresh weights.

    Args:
        networks: the entry of each arm, and what `bench.backbones.build` makes it of.
        scope: what is done with them.
        plan: how they are timed.
        host: what people call the network.
        words: see `Race`.
        suite: see `Race`.
    """
    for _, arguments in networks:
        refuse_code(arguments)
    height, width = networks[0][1]["input_size"]
    return Race(
        title=f"speed · {scope} · {host} · {height}×{width}",
        words=words,
        scope=scope,
        plan=plan,
        contenders=tuple(Contender(entry, arguments) for entry, arguments in networks),
        input_size=(height, width),
        load=functools.partial(_networks, [(e.label, arguments) for e, arguments in networks]),
        suite=suite,
    )


def _networks(
    networks: Sequence[tuple[str, Mapping[str, Any]]], store: Store, folder: Path
) -> Timed:
    from bench.backbones import build
    from bench.speed import Arm

    return Timed([Arm(label, functools.partial(build, **args)) for label, args in networks])


def host_race(
    host: HostConfig,
    operators: Sequence[OperatorConfig],
    scope: Scope,
    plan: SpeedConfig,
    *,
    size: tuple[int, int],
    where: dict[str, Any] | None,
    words: str,
) -> Race:
    """Return a race of operators in a host; the first is the baseline.

    Args:
        host: the network.
        operators: the arms, of unlike labels; one that fits no slot becomes a row that says so.
        scope: what is done with the networks.
        plan: how they are timed.
        size: height and width of the images, in pixels.
        where: slots, for operators that have none of their own; None for all that they fit.
        words: see `Race`.

    Raises:
        UserError: the host is not known, or makes no feature pyramid.

    Example:
        >>> from bench.config.schema import load_host, load_operator
        >>> race = host_race(
        ...     load_host("test_convnext"), [load_operator("dwconv"), load_operator("parc")],
        ...     "backbone", SpeedConfig(), size=(64, 64), where=None, words="",
        ... )
        >>> race.baseline, race.input_size, [c.entry.label for c in race.contenders]
        ('dwconv', (64, 64), ['dwconv', 'parc'])
    """
    from bench.backbones import build

    refuse_code({"host": host.host})
    fresh = host.model_copy(update={"pretrained": False, "weights": None})
    build(host.host, host_options=host.host_options, features_only=True, input_size=size)
    networks = []
    for operator in operators:
        backbone = {**backbone_of(fresh, operator, where, size), "features_only": True}
        entry = entry_of_network(
            operator.label,
            backbone,
            task="backbone",
            form=form_of(scope, plan),
            baseline=operator.label == operators[0].label,
        )
        networks.append((entry, backbone))
    return networks_race(networks, scope, plan, host=host.label, words=words)


def layers_race(
    operators: Sequence[OperatorConfig],
    shape: str,
    plan: SpeedConfig,
    *,
    baseline: str,
    words: str,
    suite: str | None = None,
) -> Race:
    """Return a race of operators alone, as one layer of a shape.

    Args:
        operators: the arms, of unlike labels; one that cannot stand there becomes a row that
            says so.
        shape: as `bench.speed.Shape.parse` reads it.
        plan: how they are timed.
        baseline: label of the arm to which the others are compared.
        words: see `Race`.
        suite: see `Race`.

    Raises:
        UserError: a host's own convolution is among them, or the shape is none.

    Example:
        >>> from bench.config.schema import load_operator
        >>> race = layers_race(
        ...     [load_operator("dwconv"), load_operator("parc")], "48x56-k7",
        ...     SpeedConfig(scopes={"operator": [1]}), baseline="dwconv", words="",
        ... )
        >>> race.title, race.in_channels, race.input_size
        ('speed · operator · 48x56x56-k7', 48, (56, 56))
    """
    from bench.speed.layers import Shape

    place = Shape.parse(shape)
    contenders, arms = [], []
    for operator in operators:
        name, options = _registered(operator), options_of(operator)
        arms.append((operator.label, name, options))
        entry = _layer_entry(operator, options, place, plan)
        entry = entry.model_copy(update={"baseline": operator.label == baseline})
        contenders.append(Contender(entry, [name, options, str(place)]))
    return Race(
        title=f"speed · operator · {place}",
        words=words,
        scope="operator",
        plan=plan,
        contenders=tuple(contenders),
        input_size=place.input_size,
        load=functools.partial(_layers, arms, place),
        in_channels=place.channels,
        suite=suite,
    )


def forms_race(operator: OperatorConfig, shape: str, plan: SpeedConfig, *, words: str) -> Race:
    """Return a race of the exact forms of one operator, alone, as one layer of a shape.

    The rule's form is the baseline. Maps are contiguous: what computes them in channels last is a
    form of its own, conversions included. The kernel is the shape's, whatever the operator's own:
    that times grow with it is what is asked.

    Args:
        operator: a registered one.
        shape: as `bench.speed.Shape.parse` reads it.
        plan: how they are timed; forms and layout are given by the race.
        words: see `Race`.

    Raises:
        UserError: the operator cannot stand there, or the shape is none.

    Example:
        >>> from bench.config.schema import load_operator
        >>> plan = SpeedConfig(scopes={"operator": [1]})
        >>> race = forms_race(load_operator("dwconv"), "8x9-k3", plan, words="")
        >>> race.baseline, [c.entry.exact_form for c in race.contenders]
        ('dwconv (direct)', ['direct', 'padded', 'channels_last'])
    """
    from bench.speed.layers import Shape

    place, name = Shape.parse(shape), _registered(operator)
    options = {k: v for k, v in options_of(operator).items() if k != "kernel_size"}
    plan = plan.model_copy(update={"forms": "rule", "layout": "contiguous"})
    entry = _layer_entry(operator, options, place, plan)
    contenders: list[Contender] = []
    arms = []
    for form in _forms_of(name, place, options, device_of(plan), plan.dtype):
        label = f"{operator.label} ({form})"
        one = {"label": label, "exact_form": form, "baseline": not contenders}
        arms.append((label, name, options, form))
        contenders.append(
            Contender(entry.model_copy(update=one), [name, options, str(place), form])
        )
    return Race(
        title=f"speed · exact forms · {operator.label} · {place}",
        words=words,
        scope="operator",
        plan=plan,
        contenders=tuple(contenders),
        input_size=place.input_size,
        load=functools.partial(_forms, arms, place),
        in_channels=place.channels,
    )


def _forms_of(
    name: str, place: Shape, options: Mapping[str, Any], device: str, dtype: str
) -> list[str]:
    """Return the forms that there are on a device; a GPU is looked at in a process of its own.

    This one would hold memory of it, and a context, while others measure.
    """
    from bench.speed.arms import require_device
    from bench.speed.layers import exact_forms

    require_device(device)
    given = (name, place, options, device, dtype)
    if device == "cpu":
        return exact_forms(*given)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(exact_forms, given)


def _forms(
    arms: Sequence[tuple[str, str, Mapping[str, Any], str]],
    shape: Shape,
    store: Store,
    folder: Path,
) -> Timed:
    from bench.speed import Arm
    from bench.speed.layers import fuse_in_form, layer_in_form

    return Timed(
        [
            Arm(label, functools.partial(layer_in_form, name, shape, options, form))
            for label, name, options, form in arms
        ],
        prepare=fuse_in_form,
    )


def _registered(operator: OperatorConfig) -> str:
    """Return the registered name of an operator; UserError for a host's own convolution."""
    if operator.operator is None:
        raise UserError(
            f"`operator` (={operator.label!r}) must be one of `convboard list operators` for "
            "scope 'operator': a host's own convolution is none."
        )
    return operator.operator


def _layer_entry(
    operator: OperatorConfig, options: dict[str, Any], place: Shape, plan: SpeedConfig
) -> Entry:
    """Return the entry of an operator alone, at a shape."""
    name = _registered(operator)
    return Entry(
        label=operator.label,
        operator=name,
        operator_options=options,
        operator_sha256=operator_sha256(name),
        host=LAYER,
        host_options=place.to_json(),
        task="operator",
        form=form_of("operator", plan),
    )


def _layers(
    operators: Sequence[tuple[str, str, Mapping[str, Any]]],
    shape: Shape,
    store: Store,
    folder: Path,
) -> Timed:
    from bench.speed import Arm
    from bench.speed.layers import layer

    return Timed(
        [
            Arm(label, functools.partial(layer, name, shape, options))
            for label, name, options in operators
        ]
    )
