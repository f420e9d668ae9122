"""Arrays in `.npz` files, their headers checked before anything is allocated, read a few rows at a time."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ttl_deploy.errors import DataError

_CHUNK_BYTES = 1 << 22
_LARGEST_HEADER = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayHeader:
    """Shape and type of a member."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Size of one entry along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class NpzFile:
    """The arrays of an open `.npz`; nothing in it is ever unpickled."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive

    @property
    def names(self) -> set[str]:
        """The arrays' names."""
        return {name.removesuffix(".npy") for name in self._archive.namelist() if name.endswith(".npy")}

    def header(self, name: str) -> ArrayHeader:
        """Return shape and type; raises `DataError` unless they agree with the member's size."""
        with self._archive.open(f"{name}.npy") as file:
            return self._header(file, name)

    def rows(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield an array in parts of some rows; raises `DataError` where the file ends too early."""
        with self._archive.open(f"{name}.npy") as file:
            header = self._header(file, name)
            some = max(_CHUNK_BYTES // max(header.row_bytes, 1), 1)
            for start in range(0, header.shape[0], some):
                count = min(some, header.shape[0] - start)
                content = file.read(count * header.row_bytes)
                if len(content) != count * header.row_bytes:
                    raise DataError(f"{self.path}: the array {name} is cut off: download the file again")
                yield np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:])

    def _header(self, file: IO[bytes], name: str) -> ArrayHeader:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, in_columns, dtype = read(file, max_header_size=_LARGEST_HEADER)
        if dtype.kind not in "biuf" or (in_columns and len(shape) > 1) or not shape or min(shape) < 0:
            raise DataError(f"{self.path}: the array {name} has {dtype} {shape}; allowed are plain numbers in rows")
        size = math.prod(shape) * dtype.itemsize
        held = self._archive.getinfo(f"{name}.npy").file_size - file.tell()
        if size != held:
            raise DataError(
                f"{self.path}: the array {name} announces {size:,} bytes and has {held:,}: download it again"
            )
        return ArrayHeader(shape=tuple(int(side) for side in shape), dtype=dtype)


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open a file; raises `DataError` for one that is damaged, here or while it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield NpzFile(path, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is no .npz file that can be read: {reason}. Download it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
