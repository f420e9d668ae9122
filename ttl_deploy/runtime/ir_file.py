"""What an OpenVINO model says of itself, read without openvino and before it opens the file.

An intermediate representation is a pair of files: XML with the layers and what we noted, and beside it the weights.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from ttl_deploy.errors import ArtifactError

_MAX_LAYERS = 100_000
_MAX_BYTES = 256 * 2**20
_TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "f64": "fp64", "i8": "int8", "u8": "int8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IrFacts:
    """What was read: metadata, number of layers, elements of weights (rank two and more) by type."""

    metadata: dict[str, str]
    layers: int
    weights: dict[str, int]


def read_ir_facts(path: Path) -> IrFacts:
    """Read the facts of a `model.xml`; raises `ArtifactError` where it is no model we would open.

    Refused: XML that is damaged or declares entities, layers of extensions, weights outside `model.bin`, more than
    100,000 layers.
    """
    reader = _Reader(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ArtifactError(f"{path} has more than {_MAX_BYTES} bytes: not a classifier of ours")
        reader.parse(path.read_bytes())
    except expat.ExpatError as error:
        raise ArtifactError(f"{path} is not readable XML ({error}): export the artifact again") from error
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    if reader.layers == 0:
        raise ArtifactError(f"{path} is not an OpenVINO model: it holds no layers")
    reader.check_weights(path.with_suffix(".bin"))
    return IrFacts(metadata=reader.metadata, layers=reader.layers, weights=dict(reader.weights))


class _Reader:
    """Walks the XML once, with a stack of the open elements' names."""

    def __init__(self, path: Path) -> None:
        self.metadata: dict[str, str] = {}
        self.layers = 0
        self.weights: Counter[str] = Counter()
        self._path = path
        self._open: list[str] = []
        self._constant = False
        self._end = 0

    def parse(self, content: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._finish
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.Parse(content, True)

    def check_weights(self, path: Path) -> None:
        """Refuse layers whose weights lie beyond the end of the file of weights."""
        if not path.is_file() or path.stat().st_size < self._end:
            raise ArtifactError(f"{path} is missing or shorter than {self._path} says: copy the artifact again, whole")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "layer":
            self._layer(attributes)
        elif name == "data" and self._constant and self._open[-1:] == ["layer"]:
            self._weights(attributes)
        elif self._open == ["net", "rt_info"] and "value" in attributes:
            self.metadata[name] = attributes["value"]
        self._open.append(name)

    def _finish(self, _: str) -> None:
        self._open.pop()

    def _layer(self, attributes: dict[str, str]) -> None:
        self.layers += 1
        version = attributes.get("version", "")
        if not (version.startswith("opset") and version.removeprefix("opset").isdigit()):
            raise ArtifactError(
                f"{self._path} uses operators of {version!r}; allowed are OpenVINO's own operator sets only"
            )
        if self.layers > _MAX_LAYERS:
            raise ArtifactError(f"{self._path} has more than {_MAX_LAYERS} layers: not a classifier of ours")
        self._constant = attributes.get("type") == "Const"

    def _weights(self, attributes: dict[str, str]) -> None:
        try:
            shape = [int(size) for size in attributes.get("shape", "").split(",") if size]
            offset, size = int(attributes["offset"]), int(attributes["size"])
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"{self._path} describes its weights wrongly ({error}): export it again") from error
        if offset < 0 or size < 0 or any(one < 0 for one in shape):
            raise ArtifactError(f"{self._path} describes its weights wrongly (negative sizes): export it again")
        self._end = max(self._end, offset + size)
        elements = 1
        for one in shape:
            elements *= one
        if len(shape) >= 2 and (kind := attributes.get("element_type", "")) in _TYPES:
            self.weights[_TYPES[kind]] += elements

    def _refuse_doctype(self, *_: object) -> None:
        raise ArtifactError(f"{self._path} declares a document type, which OpenVINO never writes: export it again")
