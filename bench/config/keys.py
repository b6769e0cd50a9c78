"""Keys of a YAML file, checked: what is wrong is told by key, value and rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import ConfigError, near


class Keys(BaseModel):
    """Keys with their types and defaults; others are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check(model: type[BaseModel], value: dict[str, Any], where: str) -> Any:
    """Validate a mapping against a model; ConfigError names field, value and rule."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_faults(model, error))) from None


def _faults(model: type[BaseModel], error: ValidationError) -> Iterable[str]:
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            yield f"`{name}` is not known; {near(str(fault['loc'][-1]), model.model_fields)}"
        elif fault["type"] == "value_error":  # ours, which names what is wrong
            yield f"`{name}`: {fault['ctx']['error']}" if name else str(fault["ctx"]["error"])
        else:
            yield f"`{name}` (={fault['input']!r}): {fault['msg']}"
