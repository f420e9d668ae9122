"""Find how much of a pretrained backbone a medical-image task needs, prove it, and ship it.

Importing this package never imports torch: `errors, records, plugins, data, evidence, runs, runtime,
report` form the wing that is installed on the target machine; `models, training, search, export,
analysis` need the extra `[train]`.
"""

__version__ = "0.1.0"
