"""Writes generators as ncnn and ONNX files, from one graph that is traced from their jaxpr."""
