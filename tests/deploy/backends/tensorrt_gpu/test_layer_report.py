"""layer_report.py on `Layers:` messages: shortened ones of real builds, and lines in the format of other versions."""

from types import SimpleNamespace

import pytest

from deploy.backends.tensorrt_gpu.layer_report import Layer, operators, parse, summary, table

# TensorRT-RTX 1.7.1.116, sm86, batch 1 to 4: an INT8 ResNet-18 PSPNet of this project, the lines that matter, with
# strides and formats shortened.
RTX_INT8 = """\
Layers:
Name: __mye8181_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: 
Name: __myl_CastTranAddMulMinMaxRounCast_myl0_1, LayerType: kgen, Inputs: [ { Name: image, Dimensions: [-1,144,192,3], Strides: [82944,576,3,1], StrideOrder: [3,2,1,0], Datatype: UInt8, Format: (Linear) Row major linear format }], Constants: [ { Name: __mye22265_dconst_myl0, Dimensions: [1,3,1,1], Strides: [3,1,1,1], StrideOrder: [3,2,1,0], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: __myln_k_arg__bb1_50_myl0, Dimensions: [-1,3,144,192], Strides: [82944,1,576,3], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], TacticName: __myl_Cast_0xfaf, StreamId: 0, Metadata: [ONNX Layer: node__to_copy][ONNX Layer: node_permute][ONNX Layer: mul_6_QuantizeLinear][ONNX Layer: node_sub_2]
Name: __myl_ReplConc_myl0_2, LayerType: kgen, Inputs: [ { Name: __myln_k_arg__bb1_50_myl0, Dimensions: [-1,3,144,192], Strides: [82944,1,576,3], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [], Outputs: [ { Name: __mye22420getitem_before_bias.1_51_myl0, Dimensions: [-1,4,144,192], Strides: [110592,1,768,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], TacticName: __myl_ReplConc_0x5da, StreamId: 0, Metadata: [ONNX Layer: node_Conv_1140][ONNX Layer: mul_6_DequantizeLinear]
Name: node_Conv_1140_myl0_3, LayerType: correlation, Inputs: [ { Name: __mye22420getitem_before_bias.1_51_myl0, Dimensions: [-1,4,144,192], Strides: [110592,1,768,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [ { Name: __mye54091_dconst_myl0, Dimensions: [64,4,7,7], Strides: [196,1,28,4], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }, { Name: __mye28460dconst_myl0, Dimensions: [1,64,1,1], Strides: [64,1,64,64], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], Outputs: [ { Name: __myln_k_arg__bb1_52_myl0, Dimensions: [-1,64,72,96], Strides: [442368,1,6144,64], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: node_Conv_1140][ONNX Layer: mul_6_DequantizeLinear]
Name: __myl_MulAddReluMulMinMaxRounCast_myl0_4, LayerType: kgen, Inputs: [ { Name: __myln_k_arg__bb1_52_myl0, Dimensions: [-1,64,72,96], Strides: [442368,1,6144,64], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], Constants: [ { Name: __mye57886_const-lit-in_myl0, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: relu_1, Dimensions: [-1,64,72,96], Strides: [442368,1,6144,64], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], TacticName: __myl_Mul_0xff1, StreamId: 0, Metadata: [ONNX Layer: node_Conv_1140][ONNX Layer: relu_1_QuantizeLinear][ONNX Layer: node_relu]
Name: __mye57084_myl0_14, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, EventId: 1, Metadata: 
Name: __myl_CastMulFc_myl0_55, LayerType: runtime_fusion, Inputs: [ { Name: __mye1, Dimensions: [-1,9,12], Strides: [1], StrideOrder: [0], Datatype: Int8, Format: (Linear) Row major linear format }], Constants: [ { Name: __mye2_dconst, Dimensions: [8,9], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: __mye3, Dimensions: [-1,8,12], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], TacticName: , StreamId: 1, Metadata: [ONNX Layer: node_matmul_2][ONNX Layer: node_matmul][ONNX Layer: relu_16_DequantizeLinear]
Name: __myl_Resh_myl0_57, LayerType: kgen, Inputs: [ { Name: __mye3, Dimensions: [-1,8,12], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [], Outputs: [ { Name: __mye4, Dimensions: [-1,12], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], TacticName: __myl_Resh_0x631, StreamId: 0, Metadata: 
Name: node_matmul_3_myl0_58, LayerType: gemm, Inputs: [ { Name: __mye4, Dimensions: [-1,12], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [ { Name: __mye5_dconst, Dimensions: [12,6], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: __mye6, Dimensions: [-1,6], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: node_matmul_3]
Name: __myl_MulMinMaxRounCastResh_myl0_59, LayerType: kgen, Inputs: [ { Name: __mye6, Dimensions: [-1,6], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [ { Name: __mye7_const, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: __mye8, Dimensions: [-1,512,6,6], Strides: [1], StrideOrder: [0], Datatype: Int8, Format: (NHWC) Channel major format }], TacticName: __myl_Mul_0x4d2, StreamId: 0, Metadata: [ONNX Layer: matmul_3_QuantizeLinear]
Name: node_conv2d_29_myl0_97, LayerType: correlation, Inputs: [ { Name: __mye9, Dimensions: [-1,128,9,12], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (NHWC) Channel major format }], Constants: [ { Name: __mye10dconst, Dimensions: [11,128,1,1], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (NHWC) Channel major format }], Outputs: [ { Name: logits, Dimensions: [-1,11,9,12], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: node_conv2d_29]
Name: __myl_CastReshCast_myl0_100, LayerType: kgen, Inputs: [ { Name: __mye11, Dimensions: [-1,1,144,192], Strides: [1], StrideOrder: [0], Datatype: Int32, Format: (Arbitrary) Format with stride order = [2,3,1,0] }], Constants: [], Outputs: [ { Name: labels, Dimensions: [-1,144,192], Strides: [27648,192,1], StrideOrder: [2,1,0], Datatype: UInt8, Format: (Linear) Row major linear format }], TacticName: __myl_CastReshCast_0xda1, StreamId: 0, Metadata: [ONNX Layer: node__to_copy_25]

I/O Tensors:
 Name: image, IOMode: Input, DataType: UInt8, Dimensions: [-1,144,192,3], Location: Device, IsShapeInferenceIO: false, ProfileInfo: [ { MinShape: [1,144,192,3], OptShape: [1,144,192,3], MaxShape: [4,144,192,3], Format: Row major linear UINT8 format (kLINEAR) }]

Engine Metadata:
 Multi-Device: Disabled"""  # noqa: E501, W291

WORKS = {
    "node__to_copy": "conversion",
    "node_permute": "conversion",
    "node_sub_2": "other",
    "mul_6_QuantizeLinear": "conversion",
    "mul_6_DequantizeLinear": "conversion",
    "node_Conv_1140": "convolution",
    "node_relu": "other",
    "relu_1_QuantizeLinear": "conversion",
    "relu_16_DequantizeLinear": "conversion",
    "node_matmul": "product",
    "node_matmul_2": "product",
    "node_matmul_3": "product",
    "matmul_3_QuantizeLinear": "conversion",
    "node_conv2d_29": "convolution",
    "node_argmax": "other",
    "node__to_copy_25": "conversion",
}

# In the format in which TensorRT 10 lists layers (NVIDIA/TensorRT issue 4020): the weights' type is separate, formats
# are words, and the inputs of generated layers include their constants. Not from a build of this project.
FULL_10 = """\
Layers:
Name: image_Quantize, LayerType: Reformat, Inputs: [ { Name: image, Location: Device, Dimensions: [1,3,64,64], Format/Datatype: Row major linear FP32 }], Outputs: [ { Name: image_q, Location: Device, Dimensions: [1,3,64,64], Format/Datatype: Four wide channel vectorized row major Int8 format }], ParameterType: Reformat, Origin: QDQ, TacticValue: 0x00000000000003ea, StreamId: 0, Metadata: [ONNX Layer: image_Quantize]
Name: conv0.weight + /net/conv0/Conv + /net/Relu, LayerType: CaskConvolution, Inputs: [ { Name: image_q, Location: Device, Dimensions: [1,3,64,64], Format/Datatype: Four wide channel vectorized row major Int8 format }], Outputs: [ { Name: conv0_q, Location: Device, Dimensions: [1,32,32,32], Format/Datatype: Thirty-two wide channel vectorized row major Int8 format }], ParameterType: Convolution, Kernel: [3,3], Weights: {"Type": "Int8", "Count": 864}, Bias: {"Type": "Float", "Count": 32}, HasBias: 1, Activation: RELU, TacticName: imma_fprop, TacticValue: 0x9ae0c0d2fb3a01e5, StreamId: 0, Metadata: [ONNX Layer: /net/conv0/Conv]\x1e[ONNX Layer: /net/Relu]
Name: /net/conv1/Conv, LayerType: CaskConvolution, Inputs: [ { Name: conv0_q, Location: Device, Dimensions: [1,32,32,32], Format/Datatype: Channel major FP16 format where channel % 8 == 0 }], Outputs: [ { Name: logits, Location: Device, Dimensions: [1,4,32,32], Format/Datatype: Row major linear FP32 }], ParameterType: Convolution, Kernel: [1,1], Weights: {"Type": "Half", "Count": 128}, Bias: {"Type": "Half", "Count": 4}, TacticName: hmma_fprop, TacticValue: 0x1, StreamId: 0, Metadata: [ONNX Layer: /net/conv1/Conv]
Name: /net/MatMul_myl9_4, LayerType: gemm, Inputs: [ { Name: logits_q.1_4, Dimensions: [1,4096], Format/Datatype: Int8 }, { Name: __mye595_dconst, Dimensions: [4096,1000], Format/Datatype: Int8 }, { Name: __mye575_alpha_constantFloat, Dimensions: [1], Format/Datatype: Float }], Outputs: [ { Name: output, Dimensions: [1,1000], Format/Datatype: Half }], TacticName: gemv, StreamId: 0, Metadata: [ONNX Layer: /net/MatMul]
"""  # noqa: E501


def test_int8_engine_of_rtx():
    report = parse(RTX_INT8, WORKS)
    assert report is not None
    figures = summary(report)
    assert (figures.convolutions, figures.int8_convolutions) == (2, 1)
    assert figures.float_layers == ("node_matmul", "node_matmul_2", "node_matmul_3", "node_conv2d_29")
    # Padding of the first convolution, a copy, a quantization, and the labels' type; not the head and not the ReLU.
    assert [layer.name for layer in report.conversions] == [
        "__myl_ReplConc_myl0_2",
        "__myl_Resh_myl0_57",
        "__myl_MulMinMaxRounCastResh_myl0_59",
        "__myl_CastReshCast_myl0_100",
    ]
    by_name = {product.onnx: product for product in report.products}
    assert by_name["node_Conv_1140"].layer == Layer(
        "node_Conv_1140_myl0_3",
        "correlation",
        ("node_Conv_1140", "mul_6_DequantizeLinear"),
        ("int8",),
        ("int8", "float32"),
        ("float32",),
    )
    assert by_name["node_matmul"].precision == "float32"  # INT8 in, but float weights


def test_compiler_names_do_without_the_network():
    report = parse(RTX_INT8)
    assert report is not None
    figures = summary(report)
    assert (figures.convolutions, figures.int8_convolutions) == (2, 1)
    assert figures.float_layers == ("node_matmul_3", "node_conv2d_29")


def test_form_of_tensorrt_10():
    works = {
        "image_Quantize": "conversion",
        "/net/conv0/Conv": "convolution",
        "/net/Relu": "other",
        "/net/conv1/Conv": "convolution",
        "/net/MatMul": "product",
    }
    for known in (works, None):
        report = parse(FULL_10, known)
        assert report is not None
        figures = summary(report)
        assert (figures.convolutions, figures.int8_convolutions, figures.conversions) == (2, 1, 1)
        assert figures.float_layers == ("/net/conv1/Conv",)
        assert [product.precision for product in report.products] == ["int8", "float16", "int8"]
        assert report.layers[1].onnx == ("/net/conv0/Conv", "/net/Relu")
        assert report.layers[1].outputs == ("int8",)


def test_names_without_metadata_come_from_the_layer():
    lines = "".join(line.split(", Metadata")[0] + ", Metadata: \n" for line in FULL_10.split("\n")[1:])
    report = parse(lines, {"/net/conv0/Conv": "convolution", "/net/conv1/Conv": "convolution"})
    assert report is not None
    assert summary(report).int8_convolutions == 1


def test_what_is_hidden_counts_as_float():
    """TensorRT 10 may put whole parts of a network into one layer that does not name its contents."""
    report = parse(FULL_10, {"/net/conv0/Conv": "convolution", "/net/lost/Conv": "convolution"})
    assert report is not None
    assert summary(report).int8_convolutions == 1
    assert summary(report).float_layers == ("/net/lost/Conv",)
    assert "not in INT8: /net/lost/Conv" in table(report)


@pytest.mark.parametrize("text", ["", "Layers:\n", "Layers:\nsomething else\n\nI/O Tensors:\n", "Name: a, b"])
def test_no_layers_is_no_report(text):
    assert parse(text) is None


def test_table_is_short_and_tells():
    report = parse(RTX_INT8, WORKS)
    assert report is not None
    assert table(report, most=2).splitlines() == [
        "layers            all  float32  int8",
        "------------------------------------",
        "convolutions        2        1     1",
        "matrix products     3        3     0",
        "conversions only    4",
        "other               2",
        "not in INT8: node_matmul, node_matmul_2 and 2 more",
        "converted at: node_Conv_1140, __myl_Resh_myl0_57 and 2 more",
    ]


def test_operators_take_the_weightiest_layer_of_a_node():
    """A Gemm becomes a product, a shuffle and an addition; constants belong to no node."""

    def layer(kind, metadata):
        return SimpleNamespace(type=SimpleNamespace(name=kind), metadata=metadata)

    layers = [
        layer("CONSTANT", ""),
        layer("SHUFFLE", "[ONNX Layer: gemm]"),
        layer("MATRIX_MULTIPLY", "[ONNX Layer: gemm]"),
        layer("ELEMENTWISE", "[ONNX Layer: gemm]"),
        layer("CONVOLUTION", "[ONNX Layer: a[0]/Conv]"),
        layer("SHUFFLE", "[ONNX Layer: resize]"),
        layer("RESIZE", "[ONNX Layer: resize]"),
        layer("CAST", "[ONNX Layer: cast]"),
    ]
    network = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    assert operators(network) == {
        "gemm": "product",
        "a[0]/Conv": "convolution",
        "resize": "other",
        "cast": "conversion",
    }
