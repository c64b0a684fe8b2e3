"""Training in simulated INT8 resumes exactly and recovers what INT8 costs."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deploy.bundle.manifest import InputSpec
from deploy.quantize.qdq import insert
from distill.config import AugmentConfig, DataConfig, TrainConfig
from distill.data.loader import train_batches
from distill.data.train_view import TrainView
from distill.export.deployable import Deployable
from distill.export.to_onnx import export_onnx
from distill.quantization.qat import to_qat
from distill.tasks.registry import open_splits
from distill.training.checkpoint import save_checkpoint
from distill.training.loop import train
from distill.training.stage import Stage
from teacher.pspnet import Output
from tests.distill.quantization.test_qat import MEAN, STD, run, tiny_qat, weights
from tests.distill.tiny import CE, distillation, tiny_net

STEPS = TrainConfig(steps=4, batch_size=4, lr=1e-3, checkpoint_every=1, log_every=100)


@pytest.fixture(scope="module")
def splits():
    return open_splits(DataConfig("synthetic", size=(32, 32), synthetic_counts=(24, 8, 1)))


def view_of(reader, splits, augment):
    return TrainView(reader, size=(32, 32), augment=augment, mean=MEAN, optical=splits.optical)


@pytest.fixture
def stage(tmp_path, splits):
    view = view_of(splits.train, splits, AugmentConfig(crop=(24, 24)))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return Stage("qat", tmp_path / "qat", view, mean, std, CE, seed=0)


class TestTraining:
    @pytest.mark.parametrize("config", [STEPS, replace(STEPS, ema=0.5, optimizer="sgd")])
    def test_resuming_with_a_teacher_is_bit_exact(self, stage, tmp_path, accelerator, config, monkeypatch):
        teacher = tiny_net(seed=9)
        straight = tiny_qat()
        lesson = distillation(teacher, tiny_net(), accelerator)
        train(straight, stage, config, accelerator, distillation=lesson)
        assert not torch.equal(weights(straight), weights(tiny_qat()))

        class Killed(BaseException):
            pass

        def die_after_saving(path, tensors, meta):
            save_checkpoint(path, tensors, meta)
            if path.name == "last.safetensors" and meta["step"] == 2:
                raise Killed

        killed = replace(stage, folder=tmp_path / "killed")
        monkeypatch.setattr("distill.training.train_state.save_checkpoint", die_after_saving)
        with pytest.raises(Killed):
            train(tiny_qat(), killed, config, accelerator, distillation=lesson)
        monkeypatch.undo()
        resumed = tiny_qat()
        train(resumed, killed, config, accelerator, distillation=lesson, resume=True)
        assert torch.equal(weights(resumed), weights(straight))

    def test_most_of_the_int8_loss_is_recovered(self, stage, splits, accelerator):
        """One channel 128 times as large as the others leaves those only one or two steps of a common grid."""
        torch.manual_seed(0)
        teacher = Residual()
        view = view_of(splits.train, splits, AugmentConfig(crop=(32, 32)))
        stage = replace(stage, view=view, aux=0.0)
        config = TrainConfig(steps=300, batch_size=8, lr=0.01, log_every=1000, checkpoint_every=1000)
        train(teacher, stage, config, accelerator)
        hostile = copy.deepcopy(teacher)
        hostile.enlarge(channel=5, factor=128)
        normal = [(batch.image - stage.mean) / stage.std for batch in train_batches(view, 8, 0, 0, 2)]
        qat = to_qat(hostile, normal[0], normal)
        before = score(hostile, stage, splits)
        after_ptq = score(qat, stage, splits)
        assert after_ptq < before - 0.05
        stage, config = replace(stage, folder=stage.folder / "int8"), replace(config, steps=200, lr=0.003)
        train(qat, stage, config, accelerator, distillation=distillation(teacher, hostile, accelerator))
        after_qat = score(qat, stage, splits)
        assert after_qat > before - (before - after_ptq) / 2

        spec = InputSpec(("VV", "VH"), 32, 32, "float32", "NCHW", MEAN, STD, nodata="nan")
        model = export_onnx(Deployable(qat.plain(), spec), 20)
        raw = validation(splits).image
        int8 = run(insert(model, qat.ranges(model)), raw.numpy())
        with torch.no_grad():
            simulated = qat((raw - stage.mean) / stage.std).logits
        assert (int8.argmax(1) == simulated.argmax(1).numpy()).mean() >= 0.99


class Residual(nn.Module):
    """A stem, one residual block, a classifier."""

    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Conv2d(2, width, 4, stride=4)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.classifier = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.conv2(self.conv1(x).relu())
        y += x
        return Output(self.classifier(y.relu_()), None)

    def enlarge(self, channel, factor):
        """The same function with one channel of the residual stream multiplied by `factor`."""
        with torch.no_grad():
            for writer in (self.stem, self.conv2):
                writer.weight[channel] *= factor
                writer.bias[channel] *= factor
            for reader in (self.conv1, self.classifier):
                reader.weight[:, channel] /= factor


def validation(splits):
    return next(train_batches(view_of(splits.val, splits, None), 8, 0, 0, 1))


def score(network, stage, splits):
    """Mean IoU on the validation scenes."""
    batch = validation(splits)
    with torch.no_grad():
        logits = network.eval()((batch.image - stage.mean) / stage.std).logits
    labels = F.interpolate(logits, (32, 32), mode="bilinear").argmax(1)[batch.valid]
    truth = batch.label[batch.valid]
    both = [((labels == c) & (truth == c)).sum() / ((labels == c) | (truth == c)).sum() for c in range(2)]
    return float(sum(both) / 2)
