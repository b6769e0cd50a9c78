"""The lines of Python that load a network which was written to a file."""

from __future__ import annotations

from pathlib import Path

from bench.host_code import is_code
from bench.whole_files import write_whole

LINES = '''"""Load the network and print what it says of an image: python {file} photo.jpg."""
import sys
from pathlib import Path
import torch
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize
from bench.run.network_file import load
{trust}
network, about = load(Path(__file__).with_name("{name}-fused.safetensors"))
image = decode_image(sys.argv[1], ImageReadMode.RGB)
with torch.inference_mode():
    print(about.class_names, network(resize(image, about.input_size)[None] / 255))
'''


def write_lines(folder: Path, name: str, host: str) -> Path:
    """Write the lines beside the files of a network; return their path.

    Args:
        folder: of the files.
        host: what the network was made of; code of one's own is trusted by name.
        name: of the files, as `bench.run.export_model.export_cell` took it.
    """
    path = folder / f"{name.replace('-', '_')}.py"
    trust = f"from bench.config import trust; trust.name([{host!r}])\n" if is_code(host) else ""
    write_whole(path, LINES.format(name=name, file=path.name, trust=trust))
    return path
