"""Find how much of a pretrained backbone a medical-image task needs, prove it, and ship it.

Importing this package never imports torch: `errors, records, plugins, data, evidence, runs, runtime,
report` form the wing that is installed on the target machine; `models, training, search, export,
analysis` need the extra `[train]`.
"""

import os
import sys
from types import ModuleType

# ONNX Runtime's packages send telemetry since 1.29, unless this is set before it is first imported; it
# also keeps a device id on the disk. Images of patients are near: nothing of ours talks to anybody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO and NNCF report their import and every conversion, and keep an id in the home folder, unless the
# user once declined; they leave it where this package cannot be imported.
_modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None: "do not import"
_modules.setdefault("openvino_telemetry", None)

__version__ = "0.1.0"
