"""Make an ONNX model smaller and faster: INT8 by post-training quantization, FP16 by conversion.

Needs `onnx`, which the runtime does not, so other packages import these modules only on demand. `limits`, `options`,
`calibrators`, `report` and `simulation` work without `onnx`.

    limits        numbers of calibration images that are needed
    options       options of the search
    calibrators   choose the range of a tensor's INT8 grid from the distribution of its values
    ranges        collects these distributions over calibration images
    structure     finds the operators that can run in INT8
    qdq           inserts QuantizeLinear/DequantizeLinear, and makes the form for CPUs
    tensorrt_form the form for TensorRT: fewer Q/DQ pairs, and half precision beside INT8
    search        finds the calibrator, and the layers left in float, that meet an accuracy budget
    bench         makes candidates and measures them
    tf32          what GPUs from Ampere on compute of an fp32 model
    simulation    runs the form for TensorRT on a CPU
    rounding      the same values with versions of ONNX Runtime that cut float16 off instead of rounding it
    half          converts a model, or what is not INT8 in one, to half precision
    report        results of the search: a record, a table and a chart
"""
