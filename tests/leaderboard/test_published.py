"""The published figures: whole, of networks that exist, and as the papers give them."""

import pytest

from bench.backbones.networks import names
from bench.hashing import canonical
from bench.operators import names as operators
from leaderboard.published import load

FIGURES = load()
# Hosts of a paper that are not built here.
ELSEWHERE = {"cifar-quick", "resnet56", "vgg16", "wrn-16-8"}


def values(network, metric):
    return [f.value for f in FIGURES if (f.network, f.metric) == (network, metric)]


def test_every_network_has_a_figure_and_every_figure_a_network():
    assert {figure.network for figure in FIGURES} == set(names()) | ELSEWHERE
    assert {figure.operator for figure in FIGURES} <= set(operators())


def test_no_figure_is_given_twice():
    keys = [(f.figure, f.metric, f.data, f.setting, f.source) for f in FIGURES]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("network", "metric", "expected"),
    [
        ("parcnet_s", "top1", [78.6]),
        ("parc_resnet50", "miou", [43.85]),
        ("shiftwise_t", "box_ap", [52.21]),
        ("shiftwise_s", "images_per_second", [243]),
        ("ac_resnet18", "top1", [70.53]),
        ("unireplknet_a", "images_per_second", [5942]),
        ("unireplknet_s", "top1", [83.9, 86.4]),
        ("unireplknet_xl", "miou_ms", [55.6]),
        ("ic_resnet50", "box_ap", [38.9, 42.4, 40.0, 39.2]),
        ("ic_resnet101", "keypoint_ap", [63.3, 68.5]),
    ],
)
def test_figures(network, metric, expected):
    assert values(network, metric) == expected


def test_units_fit_the_metrics():
    assert {f.unit for f in FIGURES if f.metric == "images_per_second"} == {"images/s"}
    percent = [f for f in FIGURES if f.unit == "%"]
    assert all(20 < f.value < 100 for f in percent)
    gains = [f.value - f.without_operator for f in percent if f.without_operator is not None]
    assert len(gains) == 25
    assert all(0 < gain < 12 for gain in gains)


def test_published_figures_are_read_and_checked(tmp_path):
    (tmp_path / "a.yaml").write_text(canonical([FIGURES[0].model_dump()]))
    assert load(tmp_path) == [FIGURES[0]]
    (tmp_path / "b.yaml").write_text("- {figure: x, value: high}")
    with pytest.raises(ValueError, match=r"figure 1 of b\.yaml .*`metric`.*`value`"):
        load(tmp_path)
    (tmp_path / "b.yaml").write_text("figure: x")
    with pytest.raises(ValueError, match=r"b\.yaml must be a list"):
        load(tmp_path)


def test_published_figures_of_the_package_are_valid():
    for figure in load():
        assert figure.source
        assert figure.setting
