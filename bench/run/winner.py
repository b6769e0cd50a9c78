"""The lines of Python that load a network which was written to a file."""

from __future__ import annotations

from pathlib import Path

from bench.whole_files import write_whole

LINES = '''"""Load the network and print what it says of an image: python {file} photo.jpg."""
import sys
import torch
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize
from bench.run.network_file import load

network, about = load("{name}-fused.safetensors")
image = decode_image(sys.argv[1], ImageReadMode.RGB)
with torch.inference_mode():
    print(about.class_names, network(resize(image, about.input_size)[None] / 255))
'''


def write_lines(folder: Path, name: str) -> Path:
    """Write the lines beside the files of a network; return their path.

    Args:
        folder: of the files.
        name: of the files, as `bench.run.export_model.export_cell` took it.
    """
    path = folder / f"{name.replace('-', '_')}.py"
    write_whole(path, LINES.format(name=name, file=path.name))
    return path
