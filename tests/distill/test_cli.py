"""The `edgedistill` command."""

import subprocess
import sys

import pytest

from deploy.errors import UserError
from distill import cli
from distill.losses.registry import DISTILLATION_LOSSES, GRASP_LOSSES, SEGMENTATION_LOSSES
from distill.tasks.regression.losses import LOSSES as REGRESSION_LOSSES
from student.zoo import STUDENTS
from tests.deploy.tiny import make_bundle


def test_students_lists_parameters_and_macs(capsys):
    assert cli.main(["students", "--size", "96", "pspnet/mobilenetv3_small_050"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert "GMAC at 96×96" in header
    names = [line.split()[0] for line in lines]
    assert names == [*STUDENTS, "pspnet/mobilenetv3_small_050"]
    assert {"pspnet/resnet50", "unet", "ggcnn", "deeplabv3plus/mobilenetv2_100"} <= set(names)
    assert all(float(value) > 0 for line in lines for value in line.split()[1:])


def test_presets_are_listed_with_their_purpose(capsys):
    assert cli.main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "smoke",
        "quick",
        "quick-grasp",
        "grasp-300",
        "camvid-cpu",
        "ombria",
        "camvid",
        "cornell-rgb",
        "cornell",
        "jacquard",
        "cityscapes",
        "voc",
        "folder",
        "folder-cpu",
        "folder-gpu",
        "quick-depth",
    ]
    assert all(len(line.split()) > 4 for line in lines)


def test_losses_of_every_table_are_listed(capsys):
    assert cli.main(["losses"]) == 0
    tables = [table.splitlines() for table in capsys.readouterr().out.split("\n\n")]
    assert [table[0].split(",")[0].split(":")[0] for table in tables] == [
        "against labels (--loss.task)",
        "of grasp maps (--loss.task)",
        "of a map of numbers (--loss.task)",
        "of a teacher (--distill.loss)",
    ]
    names = [[line.split("(")[0] for line in table[1:]] for table in tables]
    assert names[0] == list(SEGMENTATION_LOSSES)
    assert names[1] == list(GRASP_LOSSES)
    assert names[2] == list(REGRESSION_LOSSES)
    assert names[3][:-1] == list(DISTILLATION_LOSSES)


def test_device_commands_pass_through(tmp_path, capsys):
    make_bundle(tmp_path / "tiny.bundle")
    assert cli.main(["info", str(tmp_path / "tiny.bundle")]) == 0
    assert "segmentation" in capsys.readouterr().out


def test_no_command_prints_usage_and_is_a_mistake(capsys):
    assert cli.main([]) == 2
    assert "edgedistill COMMAND" in capsys.readouterr().out
    assert cli.main(["--help"]) == 0


def test_usage_lists_every_command(capsys):
    cli.main(["--help"])
    usage = capsys.readouterr().out
    commands = ("run", "presets", "inspect", "tiles", "students", "losses", "compare", *cli.DEVICE_COMMANDS)
    assert [name for name in commands if f"\n  {name} " not in usage] == []


def test_an_unknown_command_is_refused():
    with pytest.raises(
        UserError, match=r"unknown command 'predit' \(did you mean predict\?\); `edgedistill --help`"
    ):
        cli.main(["predit", "tiny.bundle"])


@pytest.mark.parametrize("command", ["run", "inspect"])
def test_help_names_the_command_as_it_is_typed(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: edgedistill {command} PRESET")
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "quick", "--help"])
    assert capsys.readouterr().out.startswith(f"usage: edgedistill {command} quick")


def test_training_commands_without_torch_say_what_to_install(monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"run needs the training packages: pip install 'edgedistill\[train\]'"
    ):
        cli.main(["run", "smoke"])


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (("torch", "timm"), r"evaluate needs the training packages: pip install 'edgedistill\[train\]'"),
        (("tyro",), r"evaluate needs tyro: pip install 'edgedistill\[train\]'"),
    ],
)
def test_a_package_that_only_some_arguments_need_is_named(missing, words, monkeypatch):
    def failing(_):
        raise ModuleNotFoundError(f"No module named {missing[0]!r}", name=f"{missing[0]}.nn")

    monkeypatch.setitem(cli.TRAINING, "evaluate", failing)
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name in missing else name)
    with pytest.raises(UserError, match=words):
        cli.main(["evaluate", "bundle", "quick"])


def test_a_module_missing_from_an_installed_package_is_no_mistake_of_the_user(monkeypatch):
    def failing(_):
        raise ModuleNotFoundError(name="distill.none")

    monkeypatch.setitem(cli.TRAINING, "evaluate", failing)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["evaluate", "bundle", "quick"])


def test_training_asks_for_a_later_python_than_devices_have(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 12, "final", 0))
    with pytest.raises(UserError, match=r"run needs Python 3\.11 or later, this is 3\.10 .*another machine"):
        cli.main(["run", "quick"])


def test_importing_the_command_is_light():
    code = (
        "import sys, distill.cli; print(sorted({'torch', 'timm', 'tyro', 'rich', 'onnx'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
