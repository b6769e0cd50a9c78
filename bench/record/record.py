"""The record itself: its parts, its identity, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from bench.errors import UserError
from bench.hashing import canonical, digest
from bench.places import without_places
from bench.record.decision import Decision
from bench.record.parts import (
    Accuracy,
    Cost,
    Data,
    Entry,
    Machine,
    Part,
    Provenance,
    Recipe,
    Status,
)
from bench.record.speed import Memory, Speed
from bench.record.study import Study
from bench.record.view import View
from bench.whole_files import write_whole

SCHEMA_VERSION = 1


class Record(Part):
    """One result.

    Accuracy records have data, recipe and accuracy; speed records have speed; views have data,
    recipe and view; decisions have data, recipe and decision; studies have data, recipe and study,
    data and recipe being those of the arm before it was tuned.
    """

    schema_version: Literal[1] = 1
    kind: Literal["accuracy", "speed", "view", "decision", "study"]
    identity: str = Field(
        "",
        pattern=r"^([0-9a-f]{64})?$",
        description="hash of what defines the result; filled in",
    )
    status: Status
    error: str | None = Field(None, description="why the status is not ok")
    entry: Entry
    data: Data | None = None
    recipe: Recipe | None = None
    accuracy: Accuracy | None = None
    cost: Cost | None = None
    speed: Speed | None = None
    view: View | None = None
    decision: Decision | None = None
    study: Study | None = None
    memory: Memory | None = None
    machine: Machine
    software: dict[str, str] = Field(description="package → version")
    provenance: Provenance

    @classmethod
    def make(cls, **fields: Any) -> Self:
        """Return a record of what was measured here: no folder, user or host is named in it."""
        given = {k: v.model_dump() if isinstance(v, BaseModel) else v for k, v in fields.items()}
        return cls.model_validate(without_places(given))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        wanted = {
            "accuracy": ("accuracy", "data", "recipe"),
            "speed": ("speed",),
            "view": ("view", "data", "recipe"),
            "decision": ("decision", "data", "recipe"),
            "study": ("study", "data", "recipe"),
        }[self.kind]
        missing = [name for name in wanted if getattr(self, name) is None]
        if self.status == "ok" and missing:
            raise UserError(f"an ok record of kind {self.kind!r} needs {', '.join(missing)}.")
        if self.status != "ok" and not self.error:
            raise UserError(f"`error` must say why the status is {self.status!r}.")
        if not self.identity:
            object.__setattr__(self, "identity", self._identity())
        return self

    def _identity(self) -> str:
        speed, view = self.speed, self.view
        aside = {"label", "slots_swapped", "slots_refused", "slots_carried", "ranked"}
        if self.entry.exact_form is None:  # other records' identities are older than the field
            aside.add("exact_form")
        return digest(
            {
                "kind": self.kind,
                "entry": self.entry.model_dump(exclude=aside),
                "data": self.data and self.data.model_dump(),
                "recipe": self.recipe and [self.recipe.config_sha256, self.recipe.seed],
                "speed": speed
                and [
                    speed.protocol,
                    speed.scope,
                    speed.mode,
                    speed.batch,
                    speed.input_size,
                    speed.dtype,
                    speed.layout,
                    speed.compiled,
                    speed.device,
                    speed.threads,
                    # only where there are: other records' identities are older than conditions
                    *([speed.conditions.known()] if speed.conditions else []),
                    # only where `compiled` does not say it all, for the same reason
                    *([speed.engine] if speed.engine not in ("torch", "compile") else []),
                ],
                "machine": speed and self.machine.model_dump(),
                # only where there is one: other records' identities are older than views
                **({"view": [view.method, view.weights, view.input_size]} if view else {}),
                **({"study": self.study.name} if self.study else {}),
            }
        )

    @property
    def beside(self) -> dict[str, str]:
        """Files that lie beside the record: name → SHA-256."""
        files = {}
        if self.accuracy and self.accuracy.outcomes:
            files[self.accuracy.outcomes.file] = self.accuracy.outcomes.sha256
        if self.view:
            files |= {picture.file: picture.sha256 for picture in self.view.pictures}
        return files

    @property
    def filename(self) -> str:
        """Name of the record's file: unlike for any other result, so nothing is overwritten."""
        moment = self.provenance.created.replace(":", "").replace("-", "").split(".")[0]
        return f"{self.kind}-{self.identity[:16]}-{moment}-{digest(self.model_dump())[:8]}.json"

    def save(self, folder: Path) -> Path:
        """Write the record into `folder` under its own name; the same record is written once."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.filename
        if not path.exists():
            write_whole(path, canonical(self.model_dump(mode="json")) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check one record; ValueError names the file and the fields that are wrong."""
        return cls.read(path.read_bytes(), path.name)

    @classmethod
    def read(cls, content: bytes, name: str) -> Self:
        """Check what is in a record's file of this name; see `load`."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            faults = "; ".join(
                f"`{'.'.join(map(str, e['loc'])) or 'record'}`: {e['msg']}" for e in error.errors()
            )
            raise UserError(
                f"{name} is not a record of schema {SCHEMA_VERSION}: {faults}"
            ) from None


def load_all(folder: Path) -> list[Record]:
    """Read every record below `folder`, in the order of their file names."""
    return [Record.load(path) for path in sorted(folder.rglob("*.json"), key=lambda p: p.name)]


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a record, as committed in leaderboard/schema-1.json."""
    return Record.model_json_schema()
