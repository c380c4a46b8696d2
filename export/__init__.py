"""Student to ONNX, parity, the bundle, and the demo of the whole chain."""
