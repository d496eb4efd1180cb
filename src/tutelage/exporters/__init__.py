"""Export to ONNX and LiteRT, in float32 or int8."""
