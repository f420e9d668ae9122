"""What every exported graph has in common, and by which version of ONNX it is written."""

from dataclasses import dataclass

OPSET = 18
INPUT = "image"
OUTPUT = "probabilities"
MAX_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphVersion:
    """The operator set and the version of the file; `legacy` is by torch's older exporter.

    The newer one writes nothing below opset 18, whatever it is asked for.
    """

    opset: int
    ir_version: int
    legacy: bool = False


CURRENT = GraphVersion(opset=OPSET, ir_version=10)
JETPACK5 = GraphVersion(opset=17, ir_version=8, legacy=True)
"""What the ONNX parser of TensorRT 8.5 and 8.6 reads, which JetPack 5 stays with."""
