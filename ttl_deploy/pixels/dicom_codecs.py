"""Which decoder reads which transfer syntax, and the decoding of one frame by it.

Each syntax has its decoders in a fixed order, so that what else is installed on a machine does not
change bits. None of the extra [dicom] is under a copyleft licence; JPEG Lossless has no such decoder.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.pixels.dicom_tables import DicomFaultError

UNCOMPRESSED = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"))
RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
_PLUGINS = {
    RLE: ("pydicom",),
    f"{_JPEG}50": ("pillow",),  # JPEG baseline
    f"{_JPEG}51": ("pillow", "pylibjpeg", "gdcm"),  # JPEG extended: Pillow reads 8 bits
    f"{_JPEG}57": ("pylibjpeg", "gdcm"),  # JPEG lossless
    f"{_JPEG}70": ("pylibjpeg", "gdcm"),  # JPEG lossless, selection value 1
    f"{_JPEG}80": ("pyjpegls",),  # JPEG-LS
    f"{_JPEG}81": ("pyjpegls",),
    f"{_JPEG}90": ("pylibjpeg",),  # JPEG 2000
    f"{_JPEG}91": ("pylibjpeg",),
    f"{_JPEG}201": ("pylibjpeg",),  # High-throughput JPEG 2000
    f"{_JPEG}202": ("pylibjpeg",),
    f"{_JPEG}203": ("pylibjpeg",),
}
_WITHOUT_OURS = frozenset((f"{_JPEG}51", f"{_JPEG}57", f"{_JPEG}70"))
_OPTIONAL = (
    "optional decoders are pylibjpeg-libjpeg (pip install pylibjpeg-libjpeg; its licence is GPL-3.0) and GDCM "
    "(pip install python-gdcm; BSD and Apache-2.0; damaged files can crash it)"
)


class CodecMissingError(Exception):
    """A part of the extra [dicom] is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedFrame:
    """A coded picture with what its decoder must know; `options` are pydicom's."""

    data: bytes
    transfer_syntax: str
    plugin: str
    options: dict[str, Any]


def choose_plugin(pydicom: Any, transfer_syntax: str, *, bits_stored: int) -> str:
    """Return the decoder's name, empty for pixels that are not compressed.

    Raises `DicomFaultError` for a syntax that nothing here reads and `CodecMissingError` for one that the whole
    extra would read.
    """
    if transfer_syntax in UNCOMPRESSED:
        return ""
    uid = pydicom.uid.UID(transfer_syntax)
    called = f"{uid.name} ({uid})" if uid.name != uid else str(uid)
    if transfer_syntax not in _PLUGINS:
        raise DicomFaultError(f"its transfer syntax is {called}, which is not read: save it uncompressed")
    available = pydicom.pixels.get_decoder(uid).available_plugins
    for plugin in _PLUGINS[transfer_syntax]:
        if plugin in available and not (plugin == "pillow" and bits_stored > 8):
            return plugin
    if transfer_syntax in _WITHOUT_OURS:
        raise DicomFaultError(
            f"its transfer syntax is {called}, which needs a decoder that is not installed; {_OPTIONAL}"
        )
    raise CodecMissingError


def decode_frame(frame: CodedFrame) -> NDArray[np.integer]:
    """Return stored values `(H, W)`, or RGB `(H, W, 3)`, raising whatever the decoder raises."""
    from pydicom.pixels.decoders.base import get_decoder

    array, _ = get_decoder(frame.transfer_syntax).as_array(
        frame.data, index=0, decoding_plugin=frame.plugin, **frame.options
    )
    return np.asarray(array)
