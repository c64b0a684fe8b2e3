"""`--student.max-ms`: a run trains the largest student that is fast enough, and keeps it when it is resumed."""

import json
from dataclasses import replace

import pytest

from deploy.bundle.bundle_files import read_manifest
from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.measure.command import main as measure
from deploy.measure.records import Measurement, Shape, read_measurement
from distill import cli
from distill.pipeline import student_choice
from distill.pipeline.depths import with_depths
from distill.pipeline.pipeline import run
from distill.pipeline.prepare import prepare
from distill.pipeline.student_choice import candidates_of, choose_student, options_of, target_of
from distill.run import parse
from distill.selection.choice import CHOICE, read_choice
from distill.tasks.registry import open_splits, task_of
from tests.deploy.measure.measurements import measurement, timed
from tests.deploy.measure.measurements import row as row_of

RUN = (
    "smoke",
    "--no-teacher",
    "--precision=fp32",
    "--student.arch=edge/2",
    "--student.output-stride=8",
    "--student.head-channels=512",
    "--student.no-detail",
)
FAMILY = ("edge/2", "edge/3")


@pytest.fixture(autouse=True)
def small_family(monkeypatch):
    monkeypatch.setattr(student_choice, "family_of", lambda arch: FAMILY)
    monkeypatch.setattr(student_choice, "SECONDS", 0.01)


def config_of(out, *more):
    return parse([*RUN, f"--out={out}", *map(str, more)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that chose edge/3, and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student_choice, "family_of", lambda arch: FAMILY)
        config = config_of(tmp_path_factory.mktemp("budget") / "run", "--student.max-ms=1000")
        run(config)
    return config


class TestRun:
    def test_the_chosen_network_is_trained_and_exported(self, finished):
        manifest = read_manifest(finished.out / "student.bundle")
        assert manifest.provenance["student"] == "edge/3"

    def test_the_choice_is_in_the_folder_and_the_report(self, finished):
        choice = read_choice(finished.out / CHOICE)
        assert (choice.arch, choice.max_ms, choice.source) == ("edge/3", 1000, "")
        assert [row.name for row in choice.rows] == list(FAMILY)
        assert choice.rows[0].shape.text == "48×48, 2 channels (float32), 2 classes"
        assert {form.precision for form in choice.rows[0].forms} == {"fp32", "int8"}
        assert choice.trained.p50 < 1000
        report = (finished.out / "report.md").read_text()
        assert "The student is the largest within 1000 ms, engine alone (" in report
        assert ", within the budget of 1000 ms:" in report
        assert "edge/3" in report
        written = json.loads((finished.out / "report.json").read_text())
        assert written["student_choice"]["arch"] == "edge/3"
        assert written["rows"][-1]["arch"] == "edge/3"

    def test_the_settings_are_those_that_were_asked_for(self, finished):
        stored = json.loads((finished.out / "config.json").read_text())
        assert (stored["student.arch"], stored["student.max_ms"]) == ("edge/2", 1000)

    def test_resuming_keeps_the_choice_without_measuring(self, finished, monkeypatch, capsys):
        def refuse(*_):
            raise AssertionError("measured again")

        monkeypatch.setattr(student_choice, "measure_bundles", refuse)
        context = prepare(replace(finished, resume=True))
        assert context.config.student.arch == "edge/3"
        assert "student: edge/3, " in (line := capsys.readouterr().err)
        assert "chosen when the run started" in line

    def test_resuming_with_another_budget_is_refused(self, finished):
        other = replace(finished, resume=True, student=replace(finished.student, max_ms=5.0))
        with pytest.raises(UserError, match=r"student\.max_ms was 1000\.0, is 5\.0"):
            prepare(other)

    def test_a_folder_of_another_run_is_refused_before_anything_is_measured(self, finished, monkeypatch):
        monkeypatch.setattr(student_choice, "measure_bundles", None)
        with pytest.raises(UserError, match="already holds a run"):
            prepare(finished)

    def test_resuming_before_the_choice_was_recorded_measures_again(self, finished, tmp_path, monkeypatch):
        monkeypatch.setattr(student_choice, "family_of", lambda arch: ("edge/3",))
        config = replace(finished, out=tmp_path / "run")
        config.out.mkdir()
        (config.out / "config.json").write_text((finished.out / "config.json").read_text())
        assert prepare(replace(config, resume=True)).config.student.arch == "edge/3"
        assert (config.out / CHOICE).exists()


class TestRefusals:
    def test_nothing_fast_enough_leaves_no_folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(student_choice, "family_of", lambda arch: ("edge/2",))
        config = config_of(tmp_path / "run", "--student.max-ms=1e-6")
        with pytest.raises(
            UserError, match=r"no candidate is that fast on this machine; the fastest is edge/"
        ):
            prepare(config)
        assert not config.out.exists()

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            (["--student.max-ms=-1"], "--student.max-ms -1: must be above 0, or 0 for no budget"),
            (
                ["--student.on=m.json"],
                r"--student\.on m\.json: says where --student\.max-ms holds; give both",
            ),
            (["--teacher.max-ms=3"], "the budget is for the student; give --student.max-ms"),
            (
                ["--student.max-ms=3", "--student.weights=w.safetensors"],
                "--student.weights: are those of one network",
            ),
            (
                ["--student.max-ms=3", "--student.on=m.json"],
                r"m\.json: no such file; make it: edgedistill measure",
            ),
        ],
    )
    def test_fields_that_do_not_go_together(self, fields, words, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=words):
            prepare(config_of(tmp_path / "run", *fields))
        assert not (tmp_path / "run").exists()

    def test_a_bundle_is_no_measurement(self, tmp_path):
        bundle = tmp_path / "student.bundle"
        bundle.mkdir()
        with pytest.raises(UserError, match="a bundle has the time of one network only; give the file that"):
            prepare(config_of(tmp_path / "run", "--student.max-ms=3", f"--student.on={bundle}"))

    @pytest.mark.parametrize(
        ("given", "words"), [("m.json", "no such file"), ("folder", "is a folder, and a")]
    )
    def test_a_mistyped_file_is_noticed_before_anything_is_opened(self, given, words, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("distill.pipeline.pipeline.run", None)
        (tmp_path / "folder").mkdir()
        with pytest.raises(UserError, match=f"{given}: {words}"):
            cli.main(["run", *RUN, "--out=run", "--student.max-ms=3", f"--student.on={given}"])


def unreachable(monkeypatch, *lacking):
    """ImageNet weights of some backbones cannot be had."""
    monkeypatch.setattr(student_choice, "why_missing", lambda name: "no network" if name in lacking else "")


class TestWeights:
    """Candidates that a pretrained student could not start from."""

    MEMBERS = ("pspnet/resnet18", "pspnet/mobilenetv3_large_100")

    @pytest.fixture
    def config(self, tmp_path, monkeypatch):
        monkeypatch.setattr(student_choice, "family_of", lambda arch: self.MEMBERS)
        fields = ["--student.pretrained", "--student.no-detail", "--student.max-ms=9"]
        return with_depths(parse(["smoke", *fields, f"--out={tmp_path / 'run'}"]))[0]

    def candidates(self, config):
        splits = open_splits(config.data, config.seed)
        return [one.arch for one in candidates_of(config, splits, task_of(config, splits))]

    def test_those_without_are_left_out_and_said_so(self, config, monkeypatch, capsys):
        unreachable(monkeypatch, "mobilenetv3_large_100")
        assert self.candidates(config) == ["pspnet/resnet18"]
        line = "pspnet/mobilenetv3_large_100: left out, its ImageNet weights cannot be had (no network)"
        assert line in capsys.readouterr().err
        from_scratch = replace(config, student=replace(config.student, pretrained=False))
        assert self.candidates(from_scratch) == list(self.MEMBERS)

    def test_a_measured_network_without_is_not_chosen(self, config, tmp_path, monkeypatch):
        splits = open_splits(config.data, config.seed)
        task = task_of(config, splits)
        target = target_of(config, splits, task)
        shape = Shape.of(target.spec, target.outputs, target.task)
        form = {"options": options_of(config), "shape": shape}
        rows = [row_of(arch, 1.0 + n, timed(2.0), **form) for n, arch in enumerate(self.MEMBERS)]
        write_json(tmp_path / "m.json", measurement(*rows))
        config = replace(config, student=replace(config.student, on=tmp_path / "m.json"))
        unreachable(monkeypatch)
        assert choose_student(config, splits, task).arch == self.MEMBERS[1]
        unreachable(monkeypatch, "mobilenetv3_large_100")
        assert choose_student(config, splits, task).arch == self.MEMBERS[0]
        unreachable(monkeypatch, "resnet18", "mobilenetv3_large_100")
        with pytest.raises(
            UserError, match=r"m\.json: the ImageNet weights of none of its candidates can be had"
        ):
            choose_student(config, splits, task)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Times of the run's candidates, measured on a device."""
    folder = tmp_path_factory.mktemp("device")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student_choice, "family_of", lambda arch: FAMILY)
        assert cli.main(["students", "--export", str(folder / "candidates"), "--run", *RUN]) == 0
    output = folder / "device.json"
    assert measure([str(folder / "candidates"), "-o", str(output), "--seconds", "0.01"]) == 0
    return output


class TestOnADevice:
    """Candidates of a run are exported here, measured on a device, and chosen among here."""

    def with_times(self, path, milliseconds) -> Measurement:
        """A measurement in which each network takes so long in every form."""
        raw = json.loads(path.read_text())
        for row in raw["rows"]:
            for form in row["forms"]:
                form |= dict.fromkeys(("p50", "p90", "p99"), milliseconds[row["name"]])
        write_json(path.with_name("times.json"), raw)
        return read_measurement(path.with_name("times.json"))

    @pytest.mark.parametrize(("max_ms", "arch"), [(25, "edge/3"), (15, "edge/2")])
    def test_the_file_decides(self, measured, tmp_path, max_ms, arch, monkeypatch):
        monkeypatch.setattr(student_choice, "measure_bundles", None)
        self.with_times(measured, {"edge/2": 10.0, "edge/3": 20.0})
        path = measured.with_name("times.json")
        config = config_of(tmp_path / "run", f"--student.max-ms={max_ms}", f"--student.on={path}")
        assert prepare(config).config.student.arch == arch
        assert read_choice(config.out / CHOICE).source == str(path)
        path.unlink()
        assert prepare(replace(config, resume=True)).config.student.arch == arch

    def test_a_run_of_another_size_is_refused(self, measured, tmp_path):
        fields = ["--data.size", "64", "48", "--student.max-ms=9", f"--student.on={measured}"]
        message = r"device\.json: was measured at 48×48, 2 channels .*, the run needs 64×48, 2 channels"
        with pytest.raises(UserError, match=message):
            prepare(config_of(tmp_path / "run", *fields))

    def test_a_run_with_other_options_is_refused(self, measured, tmp_path):
        config = config_of(tmp_path / "run", "--student.max-ms=9", f"--student.on={measured}")
        config = replace(config, student=replace(config.student, detail=True))
        with pytest.raises(UserError, match=r"has no candidate like edge/2:detail=True, only edge/2, edge/3"):
            prepare(config)


@pytest.mark.parametrize("preset", ["quick-grasp", "quick-depth"])
def test_candidates_of_other_tasks_have_their_outputs(preset):
    config = parse([preset, "--data.synthetic-counts", "2", "2", "2"])
    splits = open_splits(config.data, config.seed)
    task = task_of(config, splits)
    target = target_of(config, splits, task)
    assert target.task == task.device.name
    assert [output.name for output in target.outputs] == ["labels", "logits"]
    assert options_of(config) == candidates_of(config, splits, task)[0].options
