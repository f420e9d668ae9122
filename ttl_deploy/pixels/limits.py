"""What is read at all, and what damaged files make decoders raise."""

import struct
import zlib

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
MAX_PIXELS = 89_478_485  # Pillow's own threshold for a suspected decompression bomb

# What Pillow, pydicom and the codecs below them raise on damaged files (found by mutating bytes).
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)
