"""ttl-deploy itself as a wheel, packed from the files that run here: the same bytes from the same files."""

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from ttl_deploy import __version__
from ttl_deploy.files import publish

_PACKAGES = ("ttl_deploy", "ttl_deploy_cli")
_KEPT = (".py", ".typed", ".sh", ".jinja", ".css", ".js")
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
_TAGS = "Wheel-Version: 1.0\nGenerator: ttl-deploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(folder: Path) -> Path | None:
    """Write the wheel into `folder`; None where ttl-deploy is not installed, so that nothing says what it needs."""
    try:
        installed = distribution("ttl-deploy")
    except PackageNotFoundError:
        return None
    metadata = installed.read_text("METADATA") or installed.read_text("PKG-INFO")
    if metadata is None:
        return None
    path = folder / f"ttl_deploy-{__version__}-py3-none-any.whl"
    content = dict(_package_files()) | _description(installed, metadata)
    record = f"ttl_deploy-{__version__}.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in content.items()]
    content[record] = "\n".join([*lines, f"{record},,", ""]).encode()

    def write(file: object) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload] # a binary file
            for name, data in content.items():
                archive.writestr(zipfile.ZipInfo(name, _FIRST_DAY), data, zipfile.ZIP_DEFLATED)

    publish(path, write)
    return path


def _package_files() -> Iterator[tuple[str, bytes]]:
    """Yield the packages' files by their names in the wheel, sorted."""
    for package in _PACKAGES:
        found = find_spec(package)
        for root in (found.submodule_search_locations or ()) if found else ():
            for path in sorted(Path(root).rglob("*")):
                if path.suffix in _KEPT and path.is_file():
                    yield f"{package}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _description(installed: Distribution, metadata: str) -> dict[str, bytes]:
    """Return what tells an installer name, version, needs and commands."""
    info = f"ttl_deploy-{__version__}.dist-info"
    commands = installed.read_text("entry_points.txt") or ""
    texts = {"METADATA": metadata, "WHEEL": _TAGS, "entry_points.txt": commands}
    return {f"{info}/{name}": text.encode() for name, text in texts.items() if text}


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
