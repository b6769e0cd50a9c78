"""What a suite's YAML may say: every key with its type, default and meaning."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from bench import operator_sources
from bench.config import files
from bench.config.keys import Keys, check
from bench.config.speed import SpeedConfig
from bench.errors import ConfigError, near


class SearchSpace(Keys):
    """The values that a study may draw: a list, or a range (whole numbers if both ends are)."""

    values: list[Any] | None = Field(
        None, description="the values to draw from", examples=[[0.0, 0.23, 0.5]]
    )
    low: int | float | None = Field(
        None, description="the least value of a range, with `high`", examples=[1]
    )
    high: int | float | None = Field(
        None, description="the largest value of a range; included", examples=[3]
    )
    log: bool = Field(
        False, description="whether a range is drawn on a logarithmic scale", examples=[True]
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        ranged = self.low is not None and self.high is not None and self.low < self.high
        if bool(self.values) == ranged:
            raise ValueError("a space has `values`, or `low` < `high`.")
        if self.log and self.values:
            raise ValueError("`log` (=True) is for a range, not for `values`.")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError(f"`low` (={self.low}) must be above 0 with `log`.")
        return self


class Tuning(Keys):
    """The study behind an operator's settings; `convboard tune` writes it."""

    study: str = Field(description="name of the Optuna study", examples=["quick-parc"])
    trials: int = Field(ge=1, description="how many trials it had", examples=[20])


class OperatorConfig(Keys):
    """One operator of a suite (configs/operators): a registered name, options, a selection."""

    label: str = Field(
        "",
        description="what the board calls it",
        examples=["parc_height"],
        json_schema_extra={"default": "name of the file, or of the operator"},
    )
    operator: str | None = Field(
        None,
        description="registered name (`convboard list operators`); null leaves the host as it is",
        examples=["parc"],
    )
    options: dict[str, Any] = Field(
        {},
        description="the operator's own options, and `kernel_size`, `groups` and `dilation` in "
        "place of the slots'",
        examples=[{"axis": "height"}, {"kernel_size": 13}],
    )
    where: dict[str, Any] | None = Field(
        None,
        description="slots that it takes, in place of the board's; see `convboard explain where`",
        examples=[{"stages": [3, 4]}],
    )
    mix: Literal["pointwise"] | None = Field(
        None,
        description="'pointwise' lets a depthwise operator into dense slots, with a 1×1 "
        "convolution behind it",
        examples=["pointwise"],
    )
    tune: dict[str, SearchSpace] = Field(
        {},
        description="own options that a study searches; see `convboard explain tune`",
        examples=[{"paths": {"low": 1, "high": 3}}],
    )
    set: dict[str, Any] = Field(
        {},
        description="laid over the board's configuration for this operator: what a study found",
        examples=[{"model": {"init_args": {"lr": 0.004}}}],
    )
    tuned: Tuning | None = Field(
        None,
        description="the study that `set` and `options` come from, where there was one",
        examples=[{"study": "quick-parc", "trials": 20}],
    )
    description: str = Field(
        "", description="one line for `convboard list`", examples=["ParC along the height alone"]
    )

    def laid_over(self, where: dict[str, Any] | None, mix: str | None) -> Self:
        """Return the operator with what a command line says of its slots; a host's own stays."""
        given = {"where": where, "mix": mix}
        changes = {name: value for name, value in given.items() if value is not None}
        return self if self.operator is None else self.model_copy(update=changes)


class OfficialConfig(Keys):
    """A checkpoint of a paper's authors, which `convboard score` evaluates as it is."""

    file: str = Field(
        description="name of the file, looked for here and then below `--data`",
        examples=["weights/unireplknet_t_in1k_224_acc83.21.pth"],
    )
    source: str = Field(
        description="where its authors publish it",
        examples=["https://huggingface.co/DingXiaoH/UniRepLKNet"],
    )
    published: dict[str, float] = Field(
        {},
        description="metric → what its authors print of it, in the metric's own unit",
        examples=[{"top1": 0.832}],
    )


class HostConfig(Keys):
    """One host (configs/hosts): a timm model and its options."""

    label: str = Field(
        "",
        description="what the board calls it",
        examples=["fine_convnext"],
        json_schema_extra={"default": "name of the file, or of the host"},
    )
    host: str = Field(
        description="a model of timm, those of `convboard list networks` included, or code that "
        "makes a network: package.module:callable, or path/to/file.py:callable",
        examples=["test_convnext"],
    )
    host_options: dict[str, Any] = Field(
        {},
        description="more arguments of `timm.create_model`",
        examples=[{"ls_init_value": 1.0}],
    )
    pretrained: bool = Field(
        False,
        description="start from timm's weights; operators take over those that they contain",
        examples=[True],
    )
    weights: str | None = Field(
        None,
        description="start from a file's weights: .safetensors, or torch's, read as weights only; "
        "a paper's public checkpoint too",
        examples=["mine.safetensors"],
    )
    official: OfficialConfig | None = Field(
        None,
        description="its authors' checkpoint, for `convboard score`; see `convboard explain "
        "official`",
        examples=[{"file": "sw_t.pth", "source": "https://arxiv.org/abs/2401.12736"}],
    )
    description: str = Field(
        "", description="one line for `convboard list`", examples=["timm's smallest ConvNeXt"]
    )


class BoardConfig(Keys):
    """One board of a suite: a task, hosts and operators under one recipe."""

    task: str = Field(
        description="name of a file in configs/tasks, or a path: model, data and head",
        examples=["scenes-classification"],
    )
    hosts: list[str | HostConfig] = Field(
        min_length=1,
        description="names of files in configs/hosts, models of timm, or hosts in place",
        examples=[["test_convnext", {"host": "resnet18"}]],
    )
    operators: list[str | OperatorConfig] = Field(
        min_length=1,
        description="the arms: names of files in configs/operators, registered names, or "
        "operators in place",
        examples=[["dwconv", "parc", {"label": "parc_h", "operator": "parc"}]],
    )
    recipe: str = Field(
        description="name of a file in configs/recipes, or a path: optimiser, length of training",
        examples=["quick-classification"],
    )
    baseline: str = Field(
        description="label of the arm to which the others are compared", examples=["dwconv"]
    )
    seeds: list[int] | None = Field(
        None, description="in place of the suite's seeds", examples=[[0, 1, 2]]
    )
    where: dict[str, Any] | None = Field(
        None,
        description="slots, unless the arm says otherwise; see `convboard explain where`",
        examples=[{"kernel_size": 7}],
    )
    tune: dict[str, SearchSpace] = Field(
        {},
        description="settings that a study searches, beside or in place of learning rate, weight "
        "decay and drop path, by dotted name; see `convboard explain tune`",
        examples=[{"model.init_args.warmup_epochs": {"low": 0, "high": 2}}],
    )
    set: dict[str, Any] = Field(
        {},
        description="laid over the task and the recipe",
        examples=[{"trainer": {"max_epochs": 3}}],
    )
    learnt: dict[str, float] = Field(
        {},
        description="metric → what the baseline's mean must reach for the board to say anything",
        examples=[{"top1": 0.8}],
    )
    optional: bool = Field(
        False,
        description="left out, with a word, where its data are not there",
        examples=[True],
    )
    train_images: PositiveInt | None = Field(
        None,
        description="images of the training split, from which `convboard plan` estimates GPU hours",
        examples=[1281167],
    )


class Suite(Keys):
    """A suite (configs/suites): boards, seeds, and the speed run that goes with them."""

    name: str = Field(
        description="what records and MLflow call it",
        examples=["mine"],
        json_schema_extra={"default": "name of the file"},
    )
    description: str = Field(
        "", description="one line for `convboard list`", examples=["ParC against the host's own"]
    )
    seeds: list[int] = Field(
        min_length=1,
        description="each board runs with every seed: of data order, augmentation and weights",
        examples=[[0, 1, 2]],
    )
    boards: list[BoardConfig] = Field(
        min_length=1,
        description="what is compared; see `convboard explain board`",
        examples=[
            [
                {
                    "task": "scenes-classification",
                    "hosts": ["test_convnext"],
                    "operators": ["dwconv", "parc"],
                    "baseline": "dwconv",
                    "recipe": "quick-classification",
                }
            ]
        ],
    )
    speed: SpeedConfig | None = Field(
        SpeedConfig(),
        description="how `convboard speed` measures; null for a suite without",
        examples=[{"scopes": {"backbone": [1, 8]}, "rounds": 20}],
    )
    timeout_minutes: float = Field(
        24 * 60, gt=0, description="how long one cell may take", examples=[60]
    )

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"`seeds` (={seeds}) must differ.")
        return seeds


def load_suite(name: str) -> Suite:
    """Read a suite by name or path."""
    path = files.find("suites", name)
    suite: Suite = check(Suite, {"name": path.stem, **files.read(path)}, path.name)
    return suite


def load_operator(operator: str | OperatorConfig) -> OperatorConfig:
    """Read an operator's overlay; a registered name without one stands for its defaults."""
    if isinstance(operator, OperatorConfig):
        return operator.model_copy(update={"label": operator.label or operator.operator or "host"})
    if operator not in files.known("operators") and not operator.endswith((".yaml", ".yml")):
        if operator not in operator_sources.names():
            choices = sorted({*files.known("operators"), *operator_sources.names()})
            raise ConfigError(f"`operator` (={operator!r}) is not known; {near(operator, choices)}")
        return OperatorConfig(label=operator, operator=operator)
    path = files.find("operators", operator)
    arm: OperatorConfig = check(OperatorConfig, {"label": path.stem, **files.read(path)}, path.name)
    return arm


def load_host(host: str | HostConfig) -> HostConfig:
    """Read a host's overlay; any other name stands for the timm model of that name."""
    if isinstance(host, HostConfig):
        return host.model_copy(update={"label": host.label or host.host})
    if host not in files.known("hosts") and not host.endswith((".yaml", ".yml")):
        return HostConfig(label=host, host=host)
    path = files.find("hosts", host)
    made: HostConfig = check(HostConfig, {"label": path.stem, **files.read(path)}, path.name)
    return made
