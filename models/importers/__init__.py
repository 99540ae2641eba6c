"""Networks as other tools write them: ONNX, safetensors and NPZ with a YAML, torch.export (docs/workloads.md)."""

from .detector import AxisPattern, Detection, detect

__all__ = ["AxisPattern", "Detection", "detect"]
