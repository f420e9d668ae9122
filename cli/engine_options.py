"""The options of TensorRT engines, which `export` and `build` share."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ttl_deploy.records.engines import EngineRequest

BATCH = "1,1,16"
BatchOption = Annotated[
    str, typer.Option(metavar="MIN,OPT,MAX", help="Engine: batch sizes it takes, and the one it is tuned for.")
]
WorkspaceOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Engine: GPU memory that a layer may use, such as 2GiB [all].")
]
BuilderLevelOption = Annotated[
    int | None,
    typer.Option(
        min=0, max=5, help="Engine: 0 is built fastest, 5 searches longest for fast kernels [TensorRT's own]."
    ),
]
TimingCacheOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Engine: measured kernels, kept between builds on the same GPU (not rtx)."),
]
VersionOption = Annotated[
    bool, typer.Option("--version-compatible", help="Engine: restrict it to what later lean runtimes can run.")
]
HardwareOption = Annotated[
    str,
    typer.Option(
        help="Engine: none, ampere-plus or same-compute-capability: other GPUs that it must run on (not rtx)."
    ),
]
CapabilityOption = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Engine: GPUs to build for ahead of time, such as 8.6,8.9, or current (rtx) [8.0 and later].",
    ),
]
_NAMES = (
    "batch", "workspace", "builder_level", "timing_cache", "version_compatible", "hardware_compatible",
    "compute_capabilities",
)  # fmt: skip # one name per line would be longer than what it says
_DEFAULTS = {"batch": BATCH, "hardware_compatible": "none"}


def typed_options(*values: Any) -> dict[str, Any]:
    """Name the values of the options above, given in the order in which they stand above."""
    return dict(zip(_NAMES, values, strict=True))


def any_given(options: Mapping[str, Any]) -> bool:
    """Tell whether an option differs from what stands there when nothing is typed."""
    return any(value not in (None, False, "", _DEFAULTS.get(name)) for name, value in options.items())


def read_request(flavour: str, options: Mapping[str, Any]) -> "EngineRequest":
    """Return typed options as a request."""
    from ttl_deploy.runtime.tensorrt.options import parse_request

    cache = options["timing_cache"]
    return parse_request(flavour=flavour, **{**options, "timing_cache": None if cache is None else str(cache)})
