"""The model card is what the Hugging Face hub reads, and says what the bundle says."""

import pytest

from deploy.bundle.bundle_files import read_manifest
from deploy.cli import main
from deploy.errors import UserError
from tests.deploy.tiny import make_bundle


def test_the_hub_reads_it(tmp_path, capsys):
    hub = pytest.importorskip("huggingface_hub")  # a dependency of timm
    make_bundle(tmp_path / "flood.bundle", "sar")
    out = tmp_path / "README.md"
    assert main(["card", str(tmp_path / "flood.bundle"), "--out", str(out), "--license", "apache-2.0"]) == 0
    found = hub.ModelCard.load(out)
    assert found.data.license == "apache-2.0"
    assert found.data.pipeline_tag == "image-segmentation"
    [result] = found.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("miou", 0.5, "made up")
    for entry in read_manifest(tmp_path / "flood.bundle").files.values():
        assert entry.sha256[:16] in found.text
    assert 'deploy.load("flood.bundle")' in found.text
    capsys.readouterr()
    main(["card", str(tmp_path / "flood.bundle")])
    assert "water, land" in capsys.readouterr().out


def test_what_is_no_bundle(tmp_path):
    with pytest.raises(UserError, match="holds neither manifest"):
        main(["card", str(tmp_path)])
