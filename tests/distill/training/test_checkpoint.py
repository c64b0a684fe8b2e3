"""Checkpoint files: damage is detected, and a full disk leaves the old file."""

import pytest
import torch
from safetensors.torch import save

from deploy.errors import UserError
from distill.training.checkpoint import digest, load_checkpoint, load_network, read_meta, save_checkpoint
from distill.training.train_state import BEST, LAST, finished


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

    @pytest.mark.parametrize("read", [load_checkpoint, read_meta])
    def test_every_changed_byte_of_the_metadata_is_detected(self, tmp_path, read):
        path = tmp_path / "last.safetensors"
        save_checkpoint(path, {"w": torch.zeros(2)}, {"step": 30, "best_miou": 0.75})
        whole = path.read_bytes()
        start = whole.index(b"step")
        for position in range(start, whole.index(b"0.75") + 4):
            for bit in (1, 4):
                changed = bytearray(whole)
                changed[position] ^= bit
                path.write_bytes(changed)
                with pytest.raises(UserError, match=r"last\.safetensors: .*delete its folder"):
                    read(path)

    def test_checkpoints_of_earlier_versions_are_read(self, tmp_path):
        path, tensors = tmp_path / "last.safetensors", {"w": torch.ones(2)}
        path.write_bytes(save(tensors, {"meta": '{"step": 3}', "sha256": digest(tensors)}))
        assert load_checkpoint(path)[1] == read_meta(path) == {"step": 3}

    def test_weights_of_another_network_are_one_line(self, tmp_path):
        path = tmp_path / "best.safetensors"
        save_checkpoint(path, {"model.w": torch.zeros(1)}, {"step": 1})
        with pytest.raises(UserError, match=r"best\.safetensors: holds another network"):
            load_network(torch.nn.Linear(2, 2), path)

    @pytest.mark.parametrize("meta", [{}, {"step": "x", "seconds": None}, {"step": 2}])
    def test_a_stage_without_its_numbers_is_one_line(self, tmp_path, meta):
        for name in (LAST, BEST):
            save_checkpoint(tmp_path / name, {}, meta | {"step": meta.get("step", 2)} if meta else {})
        if meta.get("step") == "x":
            assert finished(tmp_path, 2) is None
        else:
            with pytest.raises(UserError, match=r"last\.safetensors: damaged checkpoint"):
                finished(tmp_path, 2)
