"""`convboard speed`: what its target and flags plan, and what it refuses before anything starts."""

import re

import pytest
import yaml

from bench.cli import speed
from bench.cli.main import main, parser
from bench.errors import Failure, UserError
from bench.run import timing


def planned(*arguments):
    """The races that a command line asks for."""
    options = parser()[0].parse_args(["speed", *arguments])
    return speed.races_of(options)


def test_flags_are_laid_over_the_plan_of_a_suite(tiny, tmp_path):
    flags = ["--scope", "backbone", "--batch", "2,4", "--dtype", "bfloat16", "--threads", "3"]
    (race,) = planned(str(tiny), *flags, "--runs", str(tmp_path))
    assert race.batches == [2, 4]
    assert (race.plan.dtype, race.plan.threads, race.plan.rounds) == ("bfloat16", 3, 3)
    assert race.words == f"tiny.yaml {' '.join(flags)}"
    (plain,) = planned(str(tiny), "--scope", "backbone", "--runs", str(tmp_path))
    assert plain.batches == [1]
    assert plain.plan.dtype == "float32"


def test_bench_times_a_suite_without_the_flags_of_speed(tiny, tmp_path):
    options = parser()[0].parse_args(["bench", str(tiny), "--runs", str(tmp_path)])
    (race,) = speed.races_of(options)  # that of the backbone: no cell is trained yet
    assert race.scope == "backbone"


def test_a_suite_without_a_plan_is_timed_where_a_scope_is_asked_for(tiny, tmp_path, capsys):
    text = yaml.safe_load(tiny.read_text())
    path = tmp_path / "untimed.yaml"
    path.write_text(yaml.safe_dump({**text, "speed": None}))
    assert planned(str(path), "--runs", str(tmp_path)) == []
    assert "no speed run is asked for" in capsys.readouterr().out
    (race,) = planned(str(path), "--scope", "backbone", "--runs", str(tmp_path))
    assert race.batches == [1, 8]


@pytest.mark.parametrize(
    ("flags", "form"),
    [("", "fused"), ("--form train", "training"), ("--scope training", "training")],
)
def test_the_form_is_in_the_entry(flags, form):
    line = f"--operators dwconv,acb --hosts test_convnext --size 32 {flags}"
    (race,) = planned(*line.split())
    assert {contender.entry.form for contender in race.contenders} == {form}


def test_operators_in_hosts_race_by_host():
    races = planned(
        *("--operators", "dwconv,parc,dwconv", "--hosts", "test_convnext,test_resnet"),
        *("--size", "64x96", "--where", "kernel_size=7", "--rounds", "5"),
    )
    assert [race.contenders[0].entry.host for race in races] == ["test_convnext", "test_resnet"]
    for race in races:
        assert [c.entry.label for c in race.contenders] == ["dwconv", "parc"]
        assert (race.scope, race.baseline, race.input_size) == ("backbone", "dwconv", (64, 96))
        assert race.contenders[0].entry.selection == {"kernel_size": 7}
        assert race.plan.rounds == 5
    again = planned(*races[0].words.split())
    assert [race.hash for race in again] == [race.hash for race in races]


def test_operators_alone_race_by_shape():
    assert len(planned("--operators", "dwconv")) == 4
    (race,) = planned("--operators", "dwconv,shift", "--shapes", "8x14-k5", "--batch", "2")
    assert (race.scope, race.batches, race.in_channels) == ("operator", [2], 8)
    (again,) = planned(*race.words.split())
    assert again.hash == race.hash


def test_exact_forms_race_by_operator_and_shape_along_a_range():
    races = planned("--operators", "dwconv,parc", "--each-form", "--shapes", "8x7..28-k3")
    assert [(r.input_size[0], r.contenders[0].entry.operator) for r in races] == [
        (side, name) for name in ("dwconv", "parc") for side in (7, 14, 28)
    ]
    assert {(r.plan.forms, r.plan.layout) for r in races} == {("rule", "contiguous")}
    again = planned(*races[0].words.split())
    assert [race.hash for race in again] == [race.hash for race in races]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("quick --each-form", "`--each-form`"),
        ("--operators dwconv --hosts test_convnext --each-form", "`--each-form`"),
        ("--operators dwconv --each-form --form train", "`--each-form`"),
        (
            "--operators dwconv --each-form --layout fastest",
            r"`--layout` \(='fastest'\) must be left",
        ),
        ("--operators dwconv --each-form --forms rule", r"`--forms` \(='rule'\) must be left out"),
        ("--operators dwconv --shapes 8x9..7-k3", r"`shape` \(='8x9..7-k3'\) must have a range"),
        ("", r"`suite` \(=None\) must name a suite, or `--operators`"),
        ("--operators dwconv --only host=a", r"`--only` \(=\['host=a'\]\) must be there with a"),
        ("--operators dwconv --seeds 1", "`--seeds`"),
        ("--operators dwconv --pretrained", r"`--pretrained` \(=True\) must be there with a suite"),
        ("--operators dwconv --weights a.pth", r"`--weights` \(='a.pth'\) must be there with a"),
        ("--operators dwconv --devices 2", r"`--devices` \(=2\) must be there with a suite"),
        ("--operators dwconv --devices 0", r"`--devices` \(=0\) must be there with a suite"),
        ("--operators dwconv --scope end_to_end", r"`--scope` \(='end_to_end'\) must be that of a"),
        ("--operators dwconv --scope backbone", r"`--scope` \(='backbone'\) must have `--hosts`"),
        ("--operators dwconv --scope operator --hosts resnet18", "`--hosts`"),
        ("--operators dwconv --size 64", r"`--size` \(='64'\) must be left out"),
        ("--operators dwcon", r"`operator` \(='dwcon'\) is not known; did you mean"),
        ("--operators dwconv --shapes 8x14", r"`shape` \(='8x14'\) must read CHANNELSxSIZE-kKERN"),
        ("--operators dwconv --hosts test_convnext --shapes 8x14-k5", "`--shapes`"),
        ("--operators dwconv --hosts test_convnext --size 64x", r"`--size` \(='64x'\) must be pix"),
        ("--operators dwconv --hosts test_convnext --where 7", r"`--where` \(='7'\) must read"),
        ("--operators dwconv --hosts test_convnex", r"`host` \(='test_convnex'\) is no model"),
        ("--operators dwconv --dtype int8", r"`dtype` \(='int8'\): Input should be 'float32'"),
        (
            "--operators dwconv --rounds one",
            r"`rounds` \(='one'\): Input should be a valid integer",
        ),
        ("--operators dwconv --batch 1,", r"`scopes.operator.1` \(=''\)"),
        ("quick --scope training --form fused", r"`form` \(='fused'\) must be 'train' for scope"),
        ("quick --engine compile", r"`engine` \(='compile'\) must be 'torch' for `scope` 'end_to"),
        ("quick --scope backbone --engine onnx", r"`engine` \(='onnx'\): Input should be 'torch'"),
        (
            "quick --scope backbone --engine openvino --dtype float16",
            r"speed: `dtype` \(='float16'\) must be 'float32' for `engine` 'openvino'",
        ),
        ("quick --shapes 8x14-k5", r"`--shapes` \(='8x14-k5'\) must be left out but for"),
        ("quick --size 64", r"`--size` \(='64'\) must be there without a suite alone"),
    ],
)
def test_wrong_arguments_are_named_before_anything_starts(line, message, tmp_path):
    with pytest.raises(UserError, match=message):
        planned(*line.split(), "--runs", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_race_that_ends_badly_stops_no_other(tmp_path, capsys, monkeypatch):
    def refused(race, *_):
        raise Failure("speed workers cannot start: no memory")

    monkeypatch.setattr(timing, "time_race", refused)
    line = "speed --operators dwconv,parc --hosts test_convnext,test_resnet --size 32"
    options = parser()[0].parse_args([*line.split(), "--runs", str(tmp_path)])
    options.line = line
    assert speed.time_target(options) == 2
    assert capsys.readouterr().out.count("speed workers cannot start: no memory") == 2


def test_an_unknown_scope_names_those_that_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["speed", "quick", "--scope", "whole"])
    told = capsys.readouterr().err
    assert "--scope: invalid choice: 'whole'" in told
    assert "end_to_end" in told


@pytest.mark.slow
def test_what_is_named_is_timed_once(tmp_path, convboard):
    line = "--operators dwconv,parc --hosts test_convnext --size 32 --scope training --batch 2"
    line += " --processes 2 --rounds 2 --threads 1"
    done = convboard("speed", *line.split(), "--runs", tmp_path / "runs", alone=True)
    assert re.search(r"parc +2 +\d", done.stdout)
    (share,) = re.findall(r"(\d+)% of it measuring", done.stdout)
    assert 0 < int(share) < 100
    assert "error" not in done.stdout
    again = convboard("speed", *line.split(), "--runs", tmp_path / "runs")
    assert "done before" in again.stdout
    assert "measuring" not in again.stdout
