"""What a pickle would build, read from its opcodes: nothing in it is built, imported or run."""

import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_LARGEST_PICKLE = 64 * 2**20
_PICKLES_IN_OLD_FILES = 4
"""torch's format before 1.6: magic number, protocol, system, then the saved object."""
_UNREADABLE = (
    *(ValueError, LookupError, OSError, EOFError, RuntimeError, OverflowError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
_LAYERS = ("torch.nn.modules.", "torchvision.models.", "torchxrayvision.")
# Their file names tell the training's settings, as in nih-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt.
_TORCHXRAYVISION_FILE = re.compile(r"-tw-lr\d+-rot\d+-")


def explain_pickle(path: Path) -> str:
    """Say what to do about a file that holds a whole model; empty where it does not seem to."""
    classes = find_classes(path)
    if not any(name.startswith(_LAYERS) for name in classes):
        return ""
    whole = "It holds a whole pickled model, which could only be read by running code in it. "
    if _TORCHXRAYVISION_FILE.search(path.name) or any(name.startswith("torchxrayvision.") for name in classes):
        return whole + (
            "It looks like torchxrayvision's: convert it where that is installed (import torch, torchxrayvision as "
            'xrv) with torch.save(xrv.models.DenseNet(weights="densenet121-res224-all").state_dict(), "xrv.pth")'
        )
    return whole + "Where you trust it, load it there and save a plain state_dict: torch.save(model.state_dict(), ...)"


def find_classes(path: Path) -> frozenset[str]:
    """Return the dotted names of all classes and functions that the pickle in a torch file refers to."""
    found: set[str] = set()
    try:
        if not zipfile.is_zipfile(path):
            with open(path, "rb") as file:
                for _ in range(_PICKLES_IN_OLD_FILES):
                    found.update(_names_in(file))
            return frozenset(found)
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith("data.pkl") and entry.file_size < _LARGEST_PICKLE:
                    with archive.open(entry) as content:
                        found.update(_names_in(content))
    except _UNREADABLE:
        pass  # a damaged file: what was found up to there is all there is
    return frozenset(found)


def _names_in(file: IO[bytes]) -> Iterator[str]:
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)
