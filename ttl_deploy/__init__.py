"""Find how much of a pretrained backbone a medical-image task needs, prove it, and ship it.

Importing this package never imports torch: `errors, records, plugins, data, evidence, runs, runtime,
report` form the wing that is installed on the target machine; `models, training, search, export,
analysis` need the extra `[train]`.
"""

import os

# ONNX Runtime's packages send telemetry since 1.29, unless this is set before it is first imported; it
# also keeps a device id on the disk. Images of patients are near: nothing of ours talks to anybody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
