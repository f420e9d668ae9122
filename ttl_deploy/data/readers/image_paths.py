"""From what tables call images to regular files below one folder, with few looks at the disk."""

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ttl_deploy.data.readers.folder import IMAGE_SUFFIXES
from ttl_deploy.data.readers.table_files import shorten
from ttl_deploy.errors import LabelError

KNOWN_SUFFIXES = IMAGE_SUFFIXES | {".dcm", ".dicom"}
_CROWDED = 4  # a folder in which so many files are looked for is listed once, instead of asked for each
_DRIVE = re.compile(r"[A-Za-z]:")
# What needs more than a look: backslashes, doubled slashes, `.` and `..`, drives, homes, NUL. Ends are seen apart.
_ODD = ("\\", "//", "/.", ":", "~", "\0")
_LONGEST = 4096  # characters; no system opens longer paths, and taking them apart is slow
_LEFT_OUT = frozenset(("__MACOSX",))

Kind = Literal["file", "folder", "link", "other", "missing"]
Where = Callable[[int], str]


@dataclass(slots=True)
class _Folder:
    """A folder below the root; `path` is where it really lies, relative to the root, with a slash behind it."""

    path: str
    outside: bool = False
    kinds: dict[str, Kind] | None = None
    stems: dict[str, list[str]] | None = None

    def count_files(self) -> int:
        """Return how many files a listed folder has, links not counted."""
        return list((self.kinds or {}).values()).count("file")

    def files(self) -> list[str]:
        """Return the names of the files in a listed folder."""
        return [name for name, kind in (self.kinds or {}).items() if kind == "file"]


@dataclass(slots=True)
class Found:
    """The images of a table's rows: `paths[i]` is relative to the root, None where there is no such file.

    `missing` has the reason for each of those; `by_name` counts those found by name alone in another folder,
    `remapped` those of another machine's absolute path; `unnamed` the images beside them that no row names.
    """

    paths: list[str | None] = field(default_factory=list)
    missing: dict[int, str] = field(default_factory=dict)
    by_name: int = 0
    remapped: int = 0
    unnamed: int = 0


class ImageFinder:
    """Finds images below `root`; no file outside of it is opened or listed.

    A name without a folder is also looked up in all folders below, and a name without a known suffix with each of
    them. With `remap`, absolute paths of another machine stand for the longest end of them that exists here.
    """

    def __init__(self, root: Path, *, remap: bool = False) -> None:
        self.root = root.resolve()
        self._prefix = f"{self.root}/".replace("//", "/")
        self._remap = remap
        self._folders: dict[str, _Folder | None] = {"": _Folder("")}
        self._tree: tuple[dict[str, list[str]], dict[str, list[str]]] | None = None
        self._found = Found()
        self._direct: Counter[str] = Counter()

    def find(self, names: Sequence[str], *, where: Where) -> Found:
        """Find every image; raises `LabelError` with `where(row)` for a path that is unsafe, empty or ambiguous."""
        self._found = Found()
        together = "\n".join(names)
        odd = any(mark in together for mark in _ODD)
        plain = [
            self._normalise(name, row, where) if odd or name[:1] in "/." else name for row, name in enumerate(names)
        ]
        self._list_crowded(plain)
        listed = {
            name: folder.kinds
            for name, folder in self._folders.items()
            if folder and folder.kinds and folder.path == (f"{name}/" if name else "")
        }
        nothing: dict[str, Kind] = {}
        others = 0
        paths = self._found.paths
        for row, name in enumerate(plain):
            head, _, tail = name.rpartition("/")
            if listed.get(head, nothing).get(tail) == "file":
                paths.append(name)
            else:
                paths.append(self._find_one(name, row, where))
                others += 1
        self._found.unnamed = self._count_unnamed(all_listed=not others)
        return self._found

    def _find_one(self, name: str, row: int, where: Where) -> str | None:
        """Return the path of an image that is not simply listed; notes it as missing where there is none."""
        if len(name) > _LONGEST:
            self._found.missing[row] = "cannot be read: File name too long"
            return None
        head, _, tail = name.rpartition("/")
        folder = self._folder(head)
        if folder and folder.outside:
            raise self._leads_out(name, where(row))
        kind = self._kind(folder, tail) if folder else "missing"
        path = f"{folder.path}{tail}" if folder else name
        if kind == "missing" and tail:
            found = self._find_by_name(folder, name, where=f"{where(row)}: {shorten(name)}")
            if found is not None:
                return found
        if kind == "link":
            path = self._below(os.path.realpath(self._prefix + path), name, where(row))
            kind = _kind_of(self._prefix + path)
        if kind == "file":
            return path
        self._found.missing[row] = _reason(self._prefix + path)
        return None

    def _normalise(self, name: str, row: int, where: Where) -> str:
        """Return a path relative to the root without `.` and `..`; raises `LabelError` where it leads elsewhere."""
        text = name.replace("\\", "/")
        if not text:
            raise LabelError(f"{where(row)} is empty: every row needs an image")
        if "\0" in text:
            raise LabelError(f"{where(row)} holds a NUL character: {shorten(name)!r}")
        if len(text) > _LONGEST:
            return text
        parts = [part for part in text.split("/") if part not in ("", ".")]
        drive = _DRIVE.match(text) is not None
        absolute = drive or text.startswith("/")
        if not parts or text.startswith("~") or _climbs_out(parts) or (absolute and ".." in parts):
            raise self._leads_out(name, where(row))
        if absolute:
            return self._place_absolute(parts[1:] if drive else parts, name, drive=drive, where=where(row))
        if ".." not in parts:
            return "/".join(parts)
        folder = os.path.realpath(self._prefix + "/".join(parts[:-1]))
        below = "" if folder == str(self.root) else self._below(folder, name, where(row)) + "/"
        return below + parts[-1]

    def _place_absolute(self, parts: list[str], name: str, *, drive: bool, where: str) -> str:
        """Return an absolute path's place below the root; of another machine's, the longest end that is a file."""
        here = "/" + "/".join(parts)
        if not drive and here.startswith(self._prefix):
            return here.removeprefix(self._prefix)
        if not self._remap:
            raise self._leads_out(name, where, "; --image-root FOLDER says where another machine's images lie here")
        for start in range(len(parts)):
            folder = self._folder("/".join(parts[start:-1]))
            if folder and not folder.outside and self._kind(folder, parts[-1]) in ("file", "link"):
                self._found.remapped += 1
                return "/".join(parts[start:])
        return "/".join(parts)

    def _list_crowded(self, names: Sequence[str]) -> None:
        """List the folders that many files or folders are looked for in, parents first."""
        self._direct = Counter([name.rpartition("/")[0] for name in names if len(name) <= _LONGEST])
        needed = self._direct.copy()
        climbed = {""}
        for folder in tuple(needed):
            while folder not in climbed:
                climbed.add(folder)
                folder = folder.rpartition("/")[0]
                needed[folder] += 1
        for name in sorted(needed):
            found = self._folder(name)
            if found and not found.outside and needed[name] >= _CROWDED:
                self._list(found)

    def _folder(self, name: str) -> _Folder | None:
        """Return a folder by its path relative to the root; None where there is none."""
        if name in self._folders:
            return self._folders[name]
        folder, key = self._folders[""], ""
        for part in name.split("/"):
            key = f"{key}/{part}" if key else part
            if key not in self._folders:
                self._folders[key] = self._subfolder(folder, part) if folder else None
            folder = self._folders[key]
            if folder is None or folder.outside:
                break
        self._folders[name] = folder
        return folder

    def _subfolder(self, parent: _Folder, name: str) -> _Folder | None:
        kind = self._kind(parent, name)
        if kind == "folder":
            return _Folder(f"{parent.path}{name}/")
        if kind != "link":
            return None
        real = os.path.realpath(f"{self._prefix}{parent.path}{name}")
        if real == str(self.root):
            return _Folder("")
        if not real.startswith(self._prefix):
            return _Folder("", outside=True)
        return _Folder(f"{real.removeprefix(self._prefix)}/") if _kind_of(real) == "folder" else None

    def _kind(self, folder: _Folder, name: str) -> Kind:
        if folder.kinds is not None:
            return folder.kinds.get(name, "missing")
        return _kind_of(f"{self._prefix}{folder.path}{name}")

    def _list(self, folder: _Folder) -> None:
        if folder.kinds is None:
            folder.kinds = dict(_list_kinds(f"{self._prefix}{folder.path}"))

    def _find_by_name(self, folder: _Folder | None, name: str, *, where: str) -> str | None:
        """Look for a name with a suffix added, and for one without a folder everywhere below the root."""
        head, _, tail = name.rpartition("/")
        bare = _suffix(tail) not in KNOWN_SUFFIXES
        if folder and bare:
            if folder.stems is None:
                self._list(folder)
                folder.stems = _by_stem(f"{folder.path}{other}" for other in folder.files())
            if tail in folder.stems:
                return _only(folder.stems[tail], where)
        if head:
            return None
        by_name, by_stem = self._index()
        found = by_name.get(tail) or (by_stem.get(tail) if bare else None)
        if not found:
            return None
        self._found.by_name += 1
        return _only(found, where)

    def _index(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return the files below the root by their names, and images by their names without suffix."""
        if self._tree is None:
            paths = list(_walk(self._prefix))
            by_name: defaultdict[str, list[str]] = defaultdict(list)
            for path in paths:
                by_name[path.rpartition("/")[2]].append(path)
            self._tree = dict(by_name), _by_stem(paths)
        return self._tree

    def _count_unnamed(self, *, all_listed: bool) -> int:
        """Count the images in the folders looked at that no row names."""
        named = set(self._found.paths)
        if self._tree is not None:
            beside = {path for paths in self._tree[0].values() for path in paths}
        else:
            # Where every row has a file of its own, a folder with as many files as rows needs no closer look.
            unique = all_listed and len(named) == len(self._found.paths)
            listed = [(name, folder) for name, folder in self._folders.items() if folder and folder.kinds]
            beside = {
                f"{folder.path}{file}"
                for name, folder in listed
                for file in ([] if unique and self._direct[name] == folder.count_files() else folder.files())
            }
        return sum(_suffix(path.rpartition("/")[2]) in KNOWN_SUFFIXES for path in beside - named)

    def _below(self, real: str, name: str, where: str) -> str:
        if not real.startswith(self._prefix):
            raise self._leads_out(name, where)
        return real.removeprefix(self._prefix)

    def _leads_out(self, name: str, where: str, remedy: str = "") -> LabelError:
        return LabelError(f"{where}: {shorten(name)} leads out of {self.root}; images must lie below it{remedy}")


def _climbs_out(parts: Sequence[str]) -> bool:
    """Tell whether a path leaves the folder that it starts from on its way, or names no file in it."""
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return parts[-1] == ".."


def _kind_of(path: str) -> Kind:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return "missing"
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISLNK(mode):
        return "link"
    return "folder" if stat.S_ISDIR(mode) else "other"


def _reason(path: str) -> str:
    try:
        Path(path).stat()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "is not a file"


def _list_kinds(folder: str) -> Iterator[tuple[str, Kind]]:
    """Yield names and kinds; nothing where the folder cannot be listed, so that its files are missing."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    yield entry.name, "file"
                elif entry.is_symlink():
                    yield entry.name, "link"
                else:
                    yield entry.name, "folder" if entry.is_dir(follow_symlinks=False) else "other"
    except OSError:
        return


def _walk(prefix: str) -> Iterator[str]:
    """Yield the files below a folder, relative to it; without hidden ones and without following links."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for name, kind in _list_kinds(prefix + folder):
            if name.startswith(".") or name in _LEFT_OUT or not _is_text(name):
                continue
            if kind == "file":
                yield folder + name
            elif kind == "folder":
                waiting.append(f"{folder}{name}/")


def _is_text(name: str) -> bool:
    """Tell whether a file's name is valid UTF-8, as everything that is stored about it must be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _by_stem(paths: Iterable[str]) -> dict[str, list[str]]:
    stems: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        name = path.rpartition("/")[2]
        suffix = _suffix(name)
        if suffix in KNOWN_SUFFIXES:
            stems[name[: -len(suffix)]].append(path)
    return dict(stems)


def _suffix(name: str) -> str:
    """Return a name's ending with its dot; a name that only begins with a dot has none."""
    start = name.rfind(".")
    return name[start:].lower() if start > 0 else ""


def _only(paths: Sequence[str], where: str) -> str:
    if len(paths) > 1:
        shown = " or ".join(sorted(paths)[:2])
        raise LabelError(f"{where} could be {shown}: give the path below the root, with its suffix")
    return paths[0]
