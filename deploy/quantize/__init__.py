"""Make an ONNX model smaller and faster: INT8 by post-training quantization, FP16 by conversion.

Needs `onnx`, which the runtime does not: nothing outside this package imports it, but on demand.

    calibrators   from the distribution of a tensor's values to the range that its INT8 grid covers
    ranges        the distributions, counted over calibration images
    structure     what of a model can run in INT8
    qdq           the model with QuantizeLinear/DequantizeLinear, for TensorRT and for CPUs
    search        the calibrator, and layers left in float, that meet a budget of accuracy
    bench         candidates made and measured
    half          the model in half precision
    report        what the search found, as a record, a table and a picture
"""
