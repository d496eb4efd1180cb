"""The model zoo, loading, and adapters of Keras, PyTorch and ONNX models."""
