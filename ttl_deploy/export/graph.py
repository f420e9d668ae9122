"""What every exported graph has in common."""

OPSET = 18
INPUT = "image"
OUTPUT = "probabilities"
MAX_BATCH = 256
