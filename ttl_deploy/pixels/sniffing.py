"""Whether content is DICOM, told from its first bytes."""

import os
from pathlib import Path

_PREAMBLE = 128
_HEAD = 140
_MAGIC = b"DICM"
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""Where a file without preamble begins: its meta group, or the group that identifies it (PS3.5 7.1)."""
_SHORT_VRS = frozenset((b"AE", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"PN", b"SH", b"TM", b"UI", b"UL", b"US"))
_LONG_VRS = frozenset((b"OB", b"OW", b"SQ", b"UC", b"UN", b"UT"))


def looks_like_dicom(head: bytes) -> bool:
    """Tell whether content that begins with these bytes is DICOM: 140 of them are enough.

    Files have 128 bytes and `DICM` first. Old ones, and streams that were saved as they came, begin
    with their first data element in little endian; its type or its length must then be possible.
    """
    if head[_PREAMBLE : _PREAMBLE + len(_MAGIC)] == _MAGIC:
        return True
    if len(head) < 8 or head[:2] not in _FIRST_GROUPS or head[3] != 0:
        return False
    kind, length = head[4:6], int.from_bytes(head[4:8], "little")
    return kind in _SHORT_VRS or kind in _LONG_VRS or 0 < length <= 1024


def is_suffixless_dicom(path: str | Path) -> bool:
    """Tell whether a file is DICOM whose name does not say so: no suffix, or one of digits as UIDs have.

    A DICOMDIR, which lists images and is none, is not; nor is a file that cannot be read.
    """
    name = os.path.basename(path)  # noqa: PTH119  # a Path for every file takes most of a large folder's walk
    suffix = os.path.splitext(name)[1][1:]  # noqa: PTH122  # as above
    if name.startswith(".") or name.upper() == "DICOMDIR" or (suffix and not suffix.isdigit()):
        return False
    try:
        with open(path, "rb") as file:
            return looks_like_dicom(file.read(_HEAD))
    except OSError:
        return False
