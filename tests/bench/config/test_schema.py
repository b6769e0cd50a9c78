"""Overlays: found by name, read as data only, merged, checked with messages a user can act on."""

import pytest
import yaml

from bench.config import files, keys, schema
from bench.errors import UserError


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_merge_replaces_lists_and_leaves_its_arguments_alone():
    below = {"a": {"b": [1, 2], "c": 3}}
    above = {"a": {"b": [4]}}
    merged = files.merge(below, above)
    merged["a"]["b"].append(5)
    assert merged == {"a": {"b": [4, 5], "c": 3}}
    assert below == {"a": {"b": [1, 2], "c": 3}}
    assert above == {"a": {"b": [4]}}


def test_assign_reads_the_value_as_yaml():
    config = {"trainer": {"max_epochs": 9}}
    files.assign(config, "trainer.max_epochs=3")
    files.assign(config, "data.init_args.image_size=[64, 96]")
    assert config == {
        "trainer": {"max_epochs": 3},
        "data": {"init_args": {"image_size": [64, 96]}},
    }


@pytest.mark.parametrize("dotted", ["trainer.max_epochs", "=3", "trainer.max_epochs.deep=1"])
def test_assign_says_what_is_wrong(dotted):
    with pytest.raises(UserError, match="--set"):
        files.assign({"trainer": {"max_epochs": 9}}, dotted)


def test_own_config_folder_comes_first(elsewhere):
    (elsewhere / "configs" / "hosts").mkdir(parents=True)
    (elsewhere / "configs" / "hosts" / "test_convnext.yaml").write_text("host: resnet18\n")
    assert schema.load_host("test_convnext").host == "resnet18"


def test_shipped_configs_are_found_from_any_folder(elsewhere):
    assert "quick" in files.known("suites")
    assert schema.load_suite("quick").boards


def test_unknown_name_lists_near_matches(elsewhere):
    with pytest.raises(UserError, match=r"`suite` \(='quik'\) is not known; did you mean 'quick'"):
        schema.load_suite("quik")
    with pytest.raises(UserError, match="did you mean"):
        schema.load_operator("unirplk")


def test_missing_file(elsewhere):
    with pytest.raises(UserError, match="there is no such file"):
        schema.load_suite("nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must hold a mapping, not list"),
        ("a: [1, 2\n", "is not YAML"),
        ("!!python/object/apply:os.system ['true']\n", "is not YAML of plain data"),
        ("boards: []\nseeds: [0]\n", "`boards`"),
        ("boards: []\nseed: [0]\n", "`seed` is not known; did you mean .*'seeds'"),
        (
            "seeds: [1, 1]\nboards:\n"
            "- {task: t, hosts: [h], operators: [o], recipe: r, baseline: o}\n",
            "must differ",
        ),
    ],
)
def test_a_wrong_suite_says_where_and_why(elsewhere, text, message):
    path = elsewhere / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        schema.load_suite(str(path))


def test_reading_runs_nothing(elsewhere):
    path = elsewhere / "evil.yaml"
    path.write_text("!!python/object/apply:pathlib.Path.touch [!!python/name:x]\n")
    with pytest.raises(UserError):
        files.read(path)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"low": 0, "high": 1, "log": True}, r"`low` \(=0\) must be above 0 with `log`"),
        ({"values": [1, 2], "log": True}, r"`log` \(=True\) is for a range"),
    ],
)
def test_a_logarithmic_space_is_a_range_above_zero(space, words):
    with pytest.raises(UserError, match=words):
        keys.check(schema.SearchSpace, space, "suite.yaml")


def test_space_is_a_list_or_a_range():
    schema.SearchSpace(values=[1])
    schema.SearchSpace(low=1, high=2)
    for wrong in ({}, {"low": 2, "high": 1}, {"values": [1], "low": 0, "high": 1}):
        with pytest.raises(ValueError, match="values"):
            schema.SearchSpace(**wrong)


@pytest.mark.parametrize("kind", ["suites", "tasks", "hosts", "operators", "recipes"])
def test_every_shipped_overlay_is_plain_yaml_with_a_description(kind):
    for name in files.known(kind):
        assert files.read(files.find(kind, name)).get("description"), f"{kind}/{name}"


def test_an_arm_may_be_a_registered_name():
    assert schema.load_operator("conv") == schema.OperatorConfig(label="conv", operator="conv")


def test_a_suite_survives_a_round_trip_through_yaml():
    suite = schema.load_suite("quick")
    again = yaml.safe_load(yaml.safe_dump(suite.model_dump()))
    assert keys.check(schema.Suite, again, "again") == suite
