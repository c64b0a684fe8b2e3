"""The model repository for Triton, checked against Triton's own schema and by running the model it holds."""

import onnxruntime
import pytest

import deploy
from deploy.bundle.bundle_files import set_decision
from deploy.cli import main
from deploy.errors import UserError
from tests.deploy.tiny import make_bundle, make_image

pytest.importorskip("tritonclient", reason="of the development packages on Python 3.11 and later")
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2


def configuration(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("kind", ["rgb", "sar"])
def test_the_configuration_is_that_of_the_graph(tmp_path, kind):
    make_bundle(tmp_path / "bundle", kind)
    assert main(["triton", str(tmp_path / "bundle"), str(tmp_path / "models"), "--name", "flood"]) == 0
    folder = tmp_path / "models" / "flood"
    found = configuration(folder)
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    types = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
    for declared, real in ((found.input, session.get_inputs()), (found.output, session.get_outputs())):
        assert [
            (one.name, model_config_pb2.DataType.Name(one.data_type), list(one.dims)) for one in declared
        ] == [(one.name, types[one.type], one.shape[1:]) for one in real]
    assert (found.name, found.backend, found.max_batch_size) == ("flood", "onnxruntime", 8)
    assert found.dynamic_batching.max_queue_delay_microseconds == 1000
    image = make_image(kind)
    batch = (image if kind == "rgb" else image.transpose(2, 0, 1))[None]
    labels = session.run(["labels"], {"image": batch})[0][0]
    assert (labels == deploy.load(tmp_path / "bundle")(image).labels).all()


def test_without_batches(tmp_path):
    make_bundle(tmp_path / "bundle")
    main(
        ["triton", str(tmp_path / "bundle"), str(tmp_path / "models"), "--max-batch", "0", "--device", "gpu"]
    )
    found = configuration(tmp_path / "models" / "bundle")
    assert found.max_batch_size == 0
    assert list(found.input[0].dims) == [1, 32, 48, 3]
    assert not found.HasField("dynamic_batching")
    assert found.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU


def test_a_threshold_is_never_lost_silently(tmp_path):
    make_bundle(tmp_path / "bundle", "sar")
    set_decision(tmp_path / "bundle", 0.7, None)
    arguments = ["triton", str(tmp_path / "bundle"), str(tmp_path / "models")]
    with pytest.raises(UserError, match=r"from a probability of 0\.7, which its graph does not do"):
        main(arguments)
    assert main([*arguments, "--without-threshold"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int8"], "has no int8 model; it has fp32"),
        (["--name", "a/b"], "--name a/b: use letters"),
        (["--instances", "0"], "--instances 0: must be 1 or more"),
    ],
)
def test_mistakes_leave_nothing(tmp_path, options, message):
    make_bundle(tmp_path / "bundle")
    with pytest.raises(UserError, match=message):
        main(["triton", str(tmp_path / "bundle"), str(tmp_path / "models"), *options])
    assert not list(tmp_path.glob("models/*"))


def test_a_model_that_exists_stays(tmp_path):
    make_bundle(tmp_path / "bundle")
    (tmp_path / "models" / "bundle").mkdir(parents=True)
    with pytest.raises(UserError, match="exists; remove it"):
        main(["triton", str(tmp_path / "bundle"), str(tmp_path / "models")])
    assert not list((tmp_path / "models" / "bundle").iterdir())


def test_damaged_files_are_not_served(tmp_path):
    make_bundle(tmp_path / "bundle")
    with open(tmp_path / "bundle" / "model.onnx", "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"model\.onnx"):
        main(["triton", str(tmp_path / "bundle"), str(tmp_path / "models")])
    assert not list(tmp_path.glob("models/*"))
