"""Make an ONNX model smaller and faster: INT8 by post-training quantization, FP16 by conversion.

Needs `onnx`, which the runtime does not, so other packages import these modules only on demand. `limits`, `options`,
`calibrators` and `report` work without `onnx`.

    limits        numbers of calibration images that are needed
    options       options of the search
    calibrators   choose the range of a tensor's INT8 grid from the distribution of its values
    ranges        collects these distributions over calibration images
    structure     finds the operators that can run in INT8
    qdq           inserts QuantizeLinear/DequantizeLinear, for TensorRT and for CPUs
    search        finds the calibrator, and the layers left in float, that meet an accuracy budget
    bench         makes candidates and measures them
    half          converts the model to half precision
    report        results of the search: a record, a table and a chart
"""
