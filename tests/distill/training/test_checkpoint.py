"""Checkpoint files: damage is detected, and a full disk leaves the old file."""

import pytest
import torch

from deploy.errors import UserError
from distill.training.checkpoint import load_checkpoint, save_checkpoint


class TestCheckpoint:
    def test_damage_is_detected(self, tmp_path):
        path = tmp_path / "last.safetensors"
        save_checkpoint(path, {"model.w": torch.arange(6.0)}, {"step": 3})
        whole = path.read_bytes()
        path.write_bytes(whole[:-4])
        with pytest.raises(UserError, match=r"last\.safetensors: damaged checkpoint"):
            load_checkpoint(path)
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UserError, match=r"last\.safetensors: checksum mismatch"):
            load_checkpoint(path)
        path.write_bytes(whole)
        tensors, meta = load_checkpoint(path)
        assert torch.equal(tensors["model.w"], torch.arange(6.0))
        assert meta == {"step": 3}

    def test_a_full_disk_keeps_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "last.safetensors"
        save_checkpoint(path, {"w": torch.zeros(1)}, {"step": 1})

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("deploy.files.atomic.os.fsync", full)
        with pytest.raises(UserError, match=r"last\.safetensors: the disk is full"):
            save_checkpoint(path, {"w": torch.ones(1)}, {"step": 2})
        assert load_checkpoint(path)[1] == {"step": 1}
        assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]
