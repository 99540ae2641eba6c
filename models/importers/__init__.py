"""Networks as other tools write them: ONNX, safetensors and NPZ with a YAML (docs/workloads.md)."""

from .detector import AxisPattern, Detection, detect
from .export import Imported, import_network

__all__ = ["AxisPattern", "Detection", "Imported", "detect", "import_network"]
