"""A host's weights out of a file: what fine-tuning starts from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from bench.backbones.read import read
from bench.errors import UserError
from bench.hashing import file_sha256
from bench.local import found

_WRAPPERS = re.compile(r"^(?:(?:model|backbone|net)\.)+")

PublicReader = Callable[[nn.Module, Mapping[str, Tensor]], bool]
public_readers: list[PublicReader] = []
"""What loads tensors by the names that a paper's authors gave them, and says whether it knew them;
`bench.checkpoints`, which stands above this room, puts its own here."""


def load_weights(model: nn.Module, file: str, sha256: str | None = None) -> list[str]:
    """Load a file's tensors into a host; return the names of those that the file does not have.

    Names are the host's own, also where it is wrapped or hands out its stages (`layers.0` for
    `layers_0`). What the host does not have is left aside, such as the classifier of a backbone;
    so is a classifier of other classes. All else of the host must be in the file: a host that is
    half another's would not be told from a trained one. A file of a paper's authors, with their
    names, is read by `bench.checkpoints`, where that is imported.

    Args:
        model: a host, not yet swapped.
        file: .safetensors, or .pth, .pt, .bin or .ckpt, read as weights only; see
            `bench.local.found`.
        sha256: hash that the file must have; None for any.

    Raises:
        UserError: no such file, another hash, or weights of another network.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import timm
        >>> from safetensors.torch import save_file
        >>> with TemporaryDirectory() as folder:
        ...     save_file(timm.create_model("test_resnet").state_dict(), f"{folder}/w.safetensors")
        ...     model = timm.create_model("test_resnet", num_classes=3)
        ...     load_weights(model, f"{folder}/w.safetensors")
        ['fc.weight', 'fc.bias']
    """
    path = found(file)
    public = read(path)
    given = {_plain(name): value for name, value in public.items()}
    if sha256 is not None and file_sha256(path)[: len(sha256)] != sha256:
        raise UserError(f"`weights` (={Path(file).name!r}): it is another file than it was.")
    own = model.state_dict()
    taken = {
        name: given[_plain(name)]
        for name, value in own.items()
        if _plain(name) in given and given[_plain(name)].shape == value.shape
    }
    missing = {name: value for name, value in own.items() if name not in taken}
    fresh = _classifier(model)
    wanted = {
        name: value
        for name, value in missing.items()
        if not name.startswith(fresh) and not name.endswith("num_batches_tracked")
    }
    if wanted:
        if any(reader(model, public) for reader in public_readers):
            return []
        raise UserError(
            f"`weights` (={Path(file).name!r}) must be those of the host: it has "
            f"{len(taken)} of its {len(own)} tensors; {_unlike(wanted, given)}"
        )
    model.load_state_dict(taken, strict=False)
    return list(missing)


def _classifier(model: nn.Module) -> tuple[str, ...]:
    """Return how the names of a host's classifier begin, whose tensors may start anew."""
    known = (getattr(model, "pretrained_cfg", None) or {}).get("classifier")
    if known is None:  # a network of somebody's own ends with it
        known = list(model.state_dict())[-1].rpartition(".")[0]
    return tuple(f"{module}." for module in ([known] if isinstance(known, str) else known))


def _plain(name: str) -> str:
    """Return a tensor's name without what wraps it, in the file as in the host.

    timm writes dots of a stage as underscores.

    Example:
        >>> _plain("net.backbone.stages_0.weight"), _plain("backbone.stages.0.weight")
        ('stages.0.weight', 'stages.0.weight')
    """
    return _WRAPPERS.sub("", name).replace("_", ".")


def _unlike(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Say of one tensor how host and file differ."""
    for name, value in own.items():
        other = given.get(_plain(name))
        if other is None:
            return f"{name} is not in it."
        if other.shape != value.shape:
            return f"{name} is {tuple(value.shape)} in the host and {tuple(other.shape)} in it."
    return "its tensors have other names."
