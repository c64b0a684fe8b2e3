"""The model repository for Triton, checked against Triton's own schema and by running the model it holds."""

import msgspec
import onnxruntime
import pytest

import deploy
from deploy.bundle.bundle_files import set_decision
from deploy.bundle.engine_files import read_sidecar, record_verdict
from deploy.cli import main
from deploy.errors import UserError
from deploy.files.atomic import sha256_file, write_json
from deploy.signing.trust_store import distrust, trust
from tests.deploy.precisions import add_engine
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


def make_engine(bundle, *, passed=True, trusted=True, **changes):
    """An engine that this user has built, as far as the files tell."""
    path = add_engine(bundle, precision="fp16", name=f"engine{len(list(bundle.glob('engines/*')))}")
    write_json(path.with_suffix(".json"), msgspec.structs.replace(read_sidecar(path), **changes))
    if passed is not None:
        record_verdict(path, passed)
    if trusted:
        trust(sha256_file(path), path, "built")
    else:
        distrust(sha256_file(path))  # another test has trusted these bytes
    return path


TENSORRT = ["--backend", "tensorrt", "--precision", "fp16"]


@pytest.mark.parametrize(
    ("batch", "options", "most"),
    [
        ((1, 1, 1), [], 0),  # a fixed size, which Triton refuses to batch
        ((1, 4, 16), [], 16),
        ((1, 4, 16), ["--max-batch", "4"], 4),
        ((1, 4, 16), ["--max-batch", "0"], 0),
    ],
)
def test_an_engine(tmp_path, batch, options, most):
    bundle = tmp_path / "bundle"
    make_bundle(bundle)
    path = make_engine(bundle, batch=batch)
    assert main(["triton", str(bundle), str(tmp_path / "models"), *TENSORRT, *options]) == 0
    folder = tmp_path / "models" / "bundle"
    found = configuration(folder)
    assert (folder / "1" / "model.plan").read_bytes() == path.read_bytes()
    assert [one.name for one in (folder / "1").iterdir()] == ["model.plan"]
    assert (found.backend, found.max_batch_size) == ("tensorrt", most)
    assert list(found.input[0].dims) == [*([] if most else [1]), 32, 48, 3]
    assert [one.name for one in found.output] == ["labels", "logits"]
    assert found.HasField("dynamic_batching") == bool(most)
    assert found.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        (None, [], "has no fp16 engine of TensorRT .* edgedistill build .* --backend tensorrt"),
        ({"passed": False}, [], "that passed its gate"),
        ({"passed": None}, [], "that passed its gate"),
        ({"source_sha256": "0" * 64}, [], "has no fp16 engine"),
        ({"batch": (4, 4, 4)}, [], "takes single images"),
        ({"options": {"core": "0" * 64}}, [], "computes the whole network"),
        ({"backend": "tensorrt-rtx"}, [], "has no fp16 engine of TensorRT"),
        ({"options": {"version_compatible": True}}, [], "carries code for the CPU"),
        ({"trusted": False}, [], "is native code that .*edgedistill trust"),
        ({"sha256": "0" * 64}, [], "checksum mismatch"),
        ({}, ["--max-batch", "8"], "takes 1 at most; build another: .* --batch 1,8,8"),
        ({}, ["--device", "cpu"], "--device cpu: engines of TensorRT run on a GPU"),
        ({}, ["--precision", "fp8"], "has no fp8 engine"),
    ],
)
def test_engines_that_triton_could_not_run_or_should_not(tmp_path, engine, options, message):
    bundle = tmp_path / "bundle"
    make_bundle(bundle)
    if engine is not None:
        make_engine(bundle, **engine)
    with pytest.raises(UserError, match=message):
        main(["triton", str(bundle), str(tmp_path / "models"), *TENSORRT, *options])
    assert not list(tmp_path.glob("models/*"))


def test_fp8_is_for_engines(tmp_path):
    make_bundle(tmp_path / "bundle")
    with pytest.raises(UserError, match="has no fp8 model; it has fp32"):
        main(["triton", str(tmp_path / "bundle"), str(tmp_path / "models"), "--precision", "fp8"])
