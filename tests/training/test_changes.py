"""Edits and settings on the way: what is interrupted ends as if nothing had happened, moments follow, a refused change changes nothing."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from saccade.cli.edit import show
from saccade.core import requests
from saccade.core.class_masks import Packed
from saccade.core.config import TrainConfig
from saccade.core.errors import Interrupted, UserError
from saccade.core.rundir import RunDir
from saccade.data.loader import Loader, Source
from saccade.editing import edit
from saccade.editing.live import Editor
from saccade.tasks.classification.task import Classification
from saccade.training import asking as asking_module
from saccade.training.learner import Workshop
from saccade.training.loop import Job, Trainer
from small_jobs import CONFIG, STEPS, Outcome, Stopping, detecting_job, fit, go_on, job, making_job, resolved, segmenting_job

EDITS = ("at step 3: widen features.0.0 1.5", "at step 5: deepen features.2 +1", "at epoch 2: replace ReLU SiLU")
CONFIGS: dict[str, TrainConfig] = {
    "default": replace(CONFIG, edits=EDITS),
    "sgd, no average": replace(CONFIG, edits=EDITS, optimizer="sgd", lr=0.02, ema=0.0),
    "muon": replace(CONFIG, edits=EDITS, optimizer="muon"),
    "rows": replace(CONFIG, edits=("at step 4: prune features.2.0.conv1 0.5",), channels_last=False),
}


def editable(path: Path, config: TrainConfig = CONFIG, **more: Any) -> Job:
    return job(path, replace(config, model="small_resnet_32px"), editor=Editor(Classification().build, config.seed), **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    made: dict[str, Outcome] = {}

    def outcome(name: str) -> Outcome:
        if name not in made:
            made[name] = fit(editable(tmp_path_factory.mktemp("whole"), CONFIGS[name]))
        return made[name]

    return outcome


def interrupted(path: Path, config: TrainConfig, after: int) -> None:
    with pytest.raises(Interrupted):
        Trainer(editable(path, config, progress=Stopping(after))).fit()


@pytest.mark.parametrize(
    ("name", "after"), [*(("default", n) for n in (2, 3, 4, 5, 8, 9)), ("sgd, no average", 6), ("muon", 4), ("rows", 4), ("rows", 7)]
)
def test_resume_is_equal_to_the_bit(whole: Callable[[str], Outcome], tmp_path: Path, name: str, after: int) -> None:
    """From a checkpoint before, at and after an edit."""
    interrupted(tmp_path, CONFIGS[name], after)
    assert go_on(editable(tmp_path, CONFIGS[name])).differs(whole(name)) == []
    assert [event["step"] for event in whole(name).events] == ([4] if name == "rows" else [3, 5, 8])


def test_a_kill_between_record_and_edit(whole: Callable[[str], Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is there and the edit is not: it is made by resume."""

    def killed(self: Any, *_: Any) -> None:
        raise KeyboardInterrupt

    interrupted(tmp_path, CONFIGS["default"], 2)
    with monkeypatch.context() as patch:
        patch.setattr(Workshop, "edited", killed)
        trainer = Trainer(editable(tmp_path, CONFIGS["default"]))
        trainer.resume()
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    assert len(RunDir(tmp_path).events()) == 1
    assert go_on(editable(tmp_path, CONFIGS["default"])).differs(whole("default")) == []


def test_the_best_model_is_rebuilt_from_its_file(whole: Callable[[str], Outcome], tmp_path: Path) -> None:
    import saccade

    (tmp_path / "last.safetensors").write_bytes(whole("default").files["last"])
    model = saccade.load(tmp_path / "last.safetensors")
    assert [edit["text"] for edit in model.card.edits] == [text.partition(": ")[2] for text in EDITS]
    assert model.module.get_submodule("network.features.0.0").weight.shape[0] == 6


def test_moments_move_as_the_weights_do(tmp_path: Path) -> None:
    """Bit-equal where nothing was touched; gathered where it was; none for what is new."""
    trainer = Trainer(editable(tmp_path, progress=Stopping(4)))
    with pytest.raises(Interrupted):
        trainer.fit()
    old, kept = trainer.learner, {}
    for name, parameter in old.model.named_parameters():
        kept[name] = {part: value.clone() for part, value in old.updater.optimizers["train"].state[parameter].items()}
    editor = Editor(Classification().build, 0)
    made, _ = editor.plan("widen features.0.0 1.5", editor.copied(old.model), old.card)
    new = trainer.workshop.edited(old, made)
    touched = []
    for name, parameter in new.model.named_parameters():
        state = new.updater.optimizers["train"].state[parameter]
        assert float(state["step"]) == 4
        if parameter.shape == kept[name]["exp_avg"].shape:
            assert all(torch.equal(state[part], value) for part, value in kept[name].items()), name
            continue
        touched.append(name)
        axis = next(i for i, (a, b) in enumerate(zip(parameter.shape, kept[name]["exp_avg"].shape, strict=True)) if a != b)
        before, more = kept[name]["exp_avg"].shape[axis], parameter.shape[axis] - kept[name]["exp_avg"].shape[axis]
        for part in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(state[part].narrow(axis, 0, before), kept[name][part])
        assert not state["exp_avg"].narrow(axis, before, more).any()
        assert torch.allclose(state["exp_avg_sq"].narrow(axis, before, more), kept[name]["exp_avg_sq"].mean())
    assert {"network.features.0.0.weight", "network.features.1.0.conv1.weight", "network.features.2.0.shortcut.1.weight"} <= set(touched)
    assert len(touched) < len(kept)
    assert old.model.get_submodule("network.features.0.0").weight.shape[0] == 4, "the one in use is as it was"
    deeper, _ = editor.plan("deepen features.2 +1", editor.copied(old.model), old.card)
    more = trainer.workshop.edited(old, deeper)
    held = more.updater.optimizers["train"].state
    fresh = [name for name, parameter in more.model.named_parameters() if parameter not in held]
    assert fresh and all(name.startswith("network.features.2.1.") for name in fresh)
    back = trainer.workshop.taken_back(new)
    for name, parameter in back.model.named_parameters():
        state = back.updater.optimizers["train"].state[parameter]
        assert all(torch.equal(state[part], value) for part, value in kept[name].items()), name


def test_the_loss_goes_on_where_it_was(tmp_path: Path) -> None:
    """At rate 0, without dropout: exact edits are exact in training too."""
    losses = []
    for number, edits in enumerate([(), EDITS[:2]]):
        made = editable(tmp_path / str(number), replace(CONFIG, lr=0.0, edits=edits))
        for module in made.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        losses.append([row["loss"] for row in fit(made).rows if "loss" in row])
    assert len(losses[0]) == STEPS
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_what_is_frozen_rests(tmp_path: Path) -> None:
    """Weights and statistics stay to the bit until they are let learn again; resume does the same."""
    config = replace(CONFIG, edits=("at step 3: freeze features.0", "at step 8: unfreeze *"))
    held: dict[int, dict[str, bytes]] = {}

    class Looks(Stopping):
        trainer: Trainer

        def advance(self, n: int = 1) -> None:
            if self.training:
                state = self.trainer.learner.model.state_dict()
                held[self.trainer.state.step] = {name: value.numpy().tobytes() for name, value in state.items()}
            super().advance(n)

    looks = Looks()
    looks.trainer = Trainer(editable(tmp_path / "whole", config, progress=looks))
    looks.trainer.fit()
    stem = [name for name in held[1] if name.startswith("network.features.0.")]
    assert len(stem) == 6
    moved = [name for name in stem for step in range(4, 8) if held[step + 1][name] != held[4][name]]
    assert moved == []
    assert all(held[10][name] != held[8][name] for name in stem) and held[9]["network.head.weight"] != held[4]["network.head.weight"]
    interrupted(tmp_path / "again", config, 5)
    assert go_on(editable(tmp_path / "again", config)).differs(Outcome.of(RunDir(tmp_path / "whole"))) == []


@pytest.mark.parametrize("text", ["freeze *", "unfreeze features.0", "freeze nosuch", "freeze", "freeze a b"])
def test_what_cannot_be_frozen(tmp_path: Path, text: str) -> None:
    made = editable(tmp_path)
    editor = Editor(Classification().build, 0)
    with pytest.raises(UserError):
        editor.plan(text, editor.copied(made.model), made.card)


def test_a_model_that_could_not_be_opened_again_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left must account for what the network was: a file may ask for so much more than it holds, and no more."""
    monkeypatch.setattr(edit, "FREE", 0)
    made = editable(tmp_path)
    editor = Editor(Classification().build, 0)
    editor.plan("prune * 0.5", editor.copied(made.model), made.card)
    monkeypatch.setattr(edit, "SHRUNK", 1)
    with pytest.raises(UserError, match="could not be opened then"):
        editor.plan("prune * 0.5", editor.copied(made.model), made.card)


def test_an_edit_where_the_figure_stalls(tmp_path: Path) -> None:
    values = [0.5, 0.6, 0.6, 0.6, 0.7, 0.7]
    answers = iter(values)
    config = replace(CONFIG, edits=("when accuracy stalls 2: widen features.0.0 1.5",))
    outcome = fit(editable(tmp_path, config, facts=resolved(every=2), evaluate=lambda module: {"accuracy": next(answers)}))
    assert [(event["event"], event["step"]) for event in outcome.events] == [("edit", 8)]


def test_a_planned_edit_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    heard = Stopping()
    outcome = fit(
        editable(tmp_path, replace(CONFIG, edits=("at step 2: widen nosuch 2", "at step 3: widen features.0.0 2")), progress=heard)
    )
    assert [event["event"] for event in outcome.events] == ["refused", "edit"]
    assert "no module 'nosuch'" in heard.messages[0]
    assert outcome.loop["planned"] == [0, 1]


def test_an_edit_that_memory_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is withdrawn, the run goes on, and does the same when it is resumed."""

    def full(self: Any, *_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    config = replace(CONFIG, edits=("at step 3: widen features.0.0 2",))
    with monkeypatch.context() as patch:
        patch.setattr(Workshop, "edited", full)
        outcome = fit(editable(tmp_path / "a", config))
        interrupted(tmp_path / "b", config, 5)
    assert [event["event"] for event in outcome.events] == ["edit", "withdrawn"]
    plain = fit(job(tmp_path / "plain"))
    assert {name for name in outcome.differs(plain) if name.endswith(".safetensors")} == set()
    shutil.rmtree(tmp_path / "b/checkpoints")
    trainer = Trainer(editable(tmp_path / "b", config))
    trainer.plan_again()
    trainer.fit()
    assert Outcome.of(trainer.job.run).files == outcome.files


@pytest.mark.slow
@pytest.mark.processes
def test_a_compiled_run_is_edited_too(tmp_path: Path) -> None:
    """It is compiled anew; the losses are those of the run that is not, and resume is equal to the bit."""
    config = replace(CONFIG, edits=EDITS[:2])
    plain = fit(editable(tmp_path / "plain", config))
    before = counters["stats"]["unique_graphs"]
    whole = fit(editable(tmp_path / "compiled", replace(config, compile=True)))
    assert counters["stats"]["unique_graphs"] >= before + 3, "the network, and it after each edit; losses may be equal to the bit"
    mine, theirs = ([row["loss"] for row in one.rows if "loss" in row] for one in (whole, plain))
    assert mine == pytest.approx(theirs, rel=1e-3)
    interrupted(tmp_path / "again", replace(config, compile=True), 4)
    assert go_on(editable(tmp_path / "again", replace(config, compile=True))).differs(whole) == []


def asking(run: RunDir, *wanted: dict[str, Any]) -> list[Path]:
    run.path.mkdir(parents=True, exist_ok=True)
    return [requests.ask(run, request) for request in wanted]


def test_requests_are_answered_in_turn(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    wanted: list[dict[str, Any]] = [
        {"edits": ["widen features.0.0 1.5"]},
        {"edits": ["widen features.0.0 1.5"], "dry_run": True},
        {"edits": ["widen nosuch 2"]},
        {"edits": ["set-input-channels 1"]},
        {"edits": ["set-classes +owl"]},
        {"settings": {"lr": 1e-4, "augment.flip": 0.0}},
        {"settings": {"seed": 5}},
        {"settings": {"lr": "high"}},
        {"undo": True},
        {"undo": True},
        {"state": "asleep"},
        {"snapshot": True},
        {"odd": 1},
        {},
    ]
    files = asking(run, *wanted)
    files += [run.requests / f"{'9' * 9}-{n:016x}.json" for n in range(3)]
    files[-3].write_text("[1]")
    files[-2].write_text("{")
    files[-1].write_text('{"edit": ' + "[" * 5000)
    (run.requests / "notes.txt").write_text("not a request")
    trainer = Trainer(editable(run.path))
    trainer.fit()
    told = [requests.answered(file) or {} for file in files]
    errors = [found.get("error", {}).get("message", "") for found in told]
    assert [bool(error) for error in errors] == [False, False, True, True, True, False, True, True, False, True, True, False] + [True] * 5
    assert "no module" in errors[2] and "data that the run is about" in errors[3] and "data that the run is about" in errors[4]
    assert "unknown setting" in errors[6] and "no edit to take back" in errors[9] and "unknown state" in errors[10]
    assert told[0]["step"] == 0 and told[0]["edits"][0]["parameters_after"] > told[0]["edits"][0]["parameters_before"]
    assert told[8]["edits"][0]["parameters_after"] == told[0]["edits"][0]["parameters_before"]
    assert [event["event"] for event in run.events()] == ["edit", "set", "undo"]
    assert requests.pending(run) == []
    assert {row["lr"] for row in run.metrics() if "lr" in row} != {0.0} and max(row.get("lr", 0) for row in run.metrics()) <= 1e-4


def test_settings_are_replayed(tmp_path: Path) -> None:
    """Rate, changes to images, batch and end: equal to the bit, wherever it is interrupted."""
    settings = [{"lr": 1e-3, "weight_decay": 0.2}, {"augment.flip": 0.0, "batch": 4}, {"epochs": 5.0, "clip": 0.5}]

    def run(path: Path, at: int, stop: int = 0) -> Job:
        class Asks(Stopping):
            def advance(self, n: int = 1) -> None:
                super().advance(n)
                if self.training and self.steps == at:
                    asking(RunDir(path), *({"settings": one} for one in settings))
                    time.sleep(2 * asking_module.LOOK_EVERY)

        return editable(path, progress=Asks(stop))

    whole = fit(run(tmp_path / "whole", 4))
    assert whole.loop["settings"] | {"lr": 1e-3} == {key: value for one in settings for key, value in one.items()}
    steps = [event["step"] for event in whole.events]
    assert len(steps) == 3 and len(set(steps)) == 1 and 4 <= steps[0] < STEPS
    images = 4 * CONFIG.batch
    assert whole.loop["position"] >= 5 * images > whole.loop["position"] - 4
    for after in (steps[0] - 1, steps[0], steps[0] + 1, steps[0] + 3):
        path = tmp_path / str(after)
        shutil.copytree(tmp_path / "whole", path)
        for name in ("metrics.jsonl", "checkpoints", "best.safetensors", "last.safetensors"):
            shutil.rmtree(path / name, ignore_errors=True)
            (path / name).unlink(missing_ok=True) if not (path / name).is_dir() else None
        trainer = Trainer(editable(path, progress=Stopping(after)))
        trainer.plan_again()
        with pytest.raises(Interrupted):
            trainer.fit()
        assert trainer.state.step == after
        assert go_on(editable(path)).differs(whole) == []


def test_pause_and_stop(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    asking(run, {"state": "paused"})
    trainer = Trainer(editable(run.path))
    ended: list[BaseException | None] = []

    def train() -> None:
        try:
            trainer.fit()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    time.sleep(1.0)
    assert trainer.state.step == 0 and not ended
    asking(run, {"state": "stopped"})
    thread.join(20)
    assert isinstance(ended[0], Interrupted) and ended[0].exit_code == 143
    assert [event["event"] for event in run.events()] == ["paused", "running"]
    plain = fit(job(tmp_path / "plain"))
    assert go_on(editable(run.path)).files == plain.files


ROOMS: dict[str, tuple[Callable[[Path], Job], tuple[str, ...]]] = {
    "gan": (lambda path: making_job(path, "r3gan"), ("at step 3: widen generator.upward 1.5",)),
    "vae": (lambda path: making_job(path, "vae"), ("at step 3: freeze downward",)),
    "detect": (detecting_job, ("at step 2: widen * 1.5", "at step 4: deepen backbone.stages.2 +1", "at step 6: freeze backbone.stem")),
    "segment": (segmenting_job, ("at step 2: widen * 1.5", "at step 4: deepen stages.2 +1", "at step 6: replace ReLU SiLU")),
}


@pytest.mark.parametrize("room", ROOMS)
def test_runs_of_other_rooms(tmp_path: Path, room: str) -> None:
    """All optimizers follow, those of a GAN too; resume is equal to the bit."""
    make, edits = ROOMS[room]

    def made(path: Path, after: int = 0) -> Job:
        one = make(path)
        config = replace(one.config, edits=edits)
        return replace(one, config=config, editor=Editor(one.task.build, 0), progress=Stopping(after))

    whole = fit(made(tmp_path / "whole"))
    assert [(event["event"], event.get("why")) for event in whole.events] == [("edit", None)] * len(edits)
    with pytest.raises(Interrupted):
        Trainer(made(tmp_path / "again", 5)).fit()
    assert go_on(made(tmp_path / "again")).differs(whole) == []


def test_a_run_without_an_editor_says_so(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    (file,) = asking(run, {"edits": ["widen features.0.0 2"]})
    Trainer(job(run.path)).fit()
    assert "cannot be edited" in (requests.answered(file) or {})["error"]["message"]


class Failing(Classification):
    def fault(self, metrics: Any, best: Any) -> str:
        return "collapsed" if metrics["accuracy"] < 0.1 else ""


def test_going_back_past_an_edit(tmp_path: Path) -> None:
    """A run that goes back to a checkpoint from before an edit makes it again."""
    answers = [0.5, 0.0, 0.6, 0.7]
    config = replace(CONFIG, on_nan="back", edits=("at step 6: widen features.0.0 1.5",))
    made = editable(tmp_path, config, facts=resolved(every=4), task=Failing(), evaluate=lambda module: {"accuracy": answers.pop(0)})
    outcome = fit(made)
    assert [event["event"] for event in outcome.events] == ["edit", "back"]
    assert outcome.loop["changes"] == 1 and len(outcome.loop["edits"]) == 1
    shape = json.loads(outcome.files["last"][8 : 8 + int.from_bytes(outcome.files["last"][:8], "little")])
    assert shape["network.features.0.0.weight"]["shape"][0] == 6


@pytest.mark.parametrize(
    "harm",
    [
        lambda loop: loop | {"edits": [{"text": "x"}]},
        lambda loop: loop | {"edits": loop["edits"] * 2},
        lambda loop: loop | {"edits": []},
        lambda loop: loop | {"settings": {"device": "cuda"}},
        lambda loop: loop | {"settings": {"lr": -1}},
        lambda loop: loop | {"ends": [[5, 3]]},
        lambda loop: loop | {"deals": [[0, 6], [0, 4]]},
        lambda loop: loop | {"deals": [[3, 6]]},
        lambda loop: loop | {"deals": [[0, 0]]},
        lambda loop: loop | {"deals": [[0, 1 << 23]]},
        lambda loop: loop | {"deals": [[0, 1 << 23], [60, 6]]},
        lambda loop: loop | {"settings": {"batch": 4}},
        lambda loop: loop | {"ends": [[1 << 70, 3]]},
        lambda loop: loop | {"changes": 0},
    ],
)
def test_a_state_that_no_run_has_left_is_refused(tmp_path: Path, harm: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    import hashlib

    interrupted(tmp_path, CONFIGS["default"], 6)
    folder = max((tmp_path / "checkpoints").iterdir())
    state = json.loads((folder / "state.json").read_text())
    state["loop"] = harm(state["loop"])
    (folder / "state.json").write_text(json.dumps(state))
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    data = (folder / "state.json").read_bytes()
    manifest["files"]["state.json"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError):
        go_on(editable(tmp_path, CONFIGS["default"]))


def test_another_batch_where_images_are_of_several_shapes(tmp_path: Path) -> None:
    """Each image comes once an epoch, and the run is resumed to the bit from before, at and after it."""

    def made(path: Path, progress: Stopping) -> Job:
        one = segmenting_job(path)
        old = one.loader.source
        images = [pixels[:, : 32 if place % 2 else None] for place, pixels in enumerate(old.store)]  # type: ignore[arg-type,var-annotated]
        kinds = [Packed.of(kind.values[:, : pixels.shape[1]]) for kind, pixels in zip(old.targets, images, strict=True)]
        source = Source(images, kinds, old.names, [kind.size for kind in kinds])  # type: ignore[arg-type]
        config = replace(one.config, model="small_unet", size=(128, 128), segmentation=replace(one.config.segmentation, native=False))
        loader = Loader(source, one.task.augment(config), seed=0, batch=config.batch)
        assert {tuple(parts[0].images.shape[2:]) for parts in map(loader.step, range(0, 60, 6))} == {(128, 64), (128, 128)}
        return replace(one, config=config, loader=loader, progress=progress, editor=Editor(one.task.build, 0))

    run = RunDir(tmp_path / "run")
    trainer = Trainer(made(run.path, Asks(run, 4, {"settings": {"batch": 4}})))
    trainer.fit()
    whole = Outcome.of(run)
    (event,) = whole.events
    assert event["event"] == "set" and len(whole.loop["deals"]) == 2 and whole.loop["deals"][0] == [0, CONFIG.batch]
    for after in (event["step"] - 1, event["step"] + 1, event["step"] + 4):
        path = tmp_path / str(after)
        path.mkdir()
        shutil.copy(run.path / "events.jsonl", path)
        again = Trainer(made(path, Stopping(after)))
        again.plan_again()
        with pytest.raises(Interrupted):
            again.fit()
        assert go_on(made(path, Stopping())).differs(whole) == []


def test_two_edits_that_wait_for_a_stall(tmp_path: Path) -> None:
    """The second counts from the first on, also in a run that resumes from before both."""
    edits = ("when accuracy stalls 2: widen features.0.0 1.5", "when accuracy stalls 2: deepen features.2 +1")
    values = [0.5, 0.6, 0.6, 0.6, 0.6, 0.6]
    config = replace(CONFIG, edits=edits)

    def made(path: Path, after: int = 0) -> Job:
        answers = iter(values)
        return editable(
            path, config, facts=resolved(every=2), evaluate=lambda module: {"accuracy": next(answers)}, progress=Stopping(after)
        )

    whole = fit(made(tmp_path / "whole"))
    assert [event["step"] for event in whole.events] == [8, 12] or [event["step"] for event in whole.events] == [8]
    with pytest.raises(Interrupted):
        Trainer(made(tmp_path / "again", 9)).fit()
    shutil.rmtree(tmp_path / "again/checkpoints")
    trainer = Trainer(made(tmp_path / "again"))
    trainer.plan_again()
    (tmp_path / "again/metrics.jsonl").unlink()
    trainer.fit()
    assert Outcome.of(trainer.job.run).differs(whole) == []


def test_what_was_refused_is_refused_again(tmp_path: Path) -> None:
    """Though it could be made by then: what a resumed run does is what the first did."""
    run = RunDir(tmp_path / "run")
    config = replace(CONFIG, edits=("at step 5: widen features.2.1.conv1 2",))

    class Asks(Stopping):
        def advance(self, n: int = 1) -> None:
            super().advance(n)
            if self.training and self.steps == 7:
                asking(run, {"edits": ["deepen features.2 +1"]})
                time.sleep(2 * asking_module.LOOK_EVERY)

    whole = fit(editable(run.path, config, progress=Asks()))
    assert [(event["event"], event["number"]) for event in whole.events] == [("refused", 0), ("edit", 1)]
    for name in ("checkpoints", "requests"):
        shutil.rmtree(run.path / name)
    run.metrics_file.unlink()
    trainer = Trainer(editable(run.path, config))
    trainer.plan_again()
    trainer.fit()
    assert Outcome.of(run).differs(whole) == []


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: an illegal memory access"), OverflowError("x"), AssertionError("y")])
def test_an_edit_that_fails_for_any_reason_is_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(self: Any, *_: Any) -> None:
        raise error

    run = RunDir(tmp_path / "run")
    (file,) = asking(run, {"edits": ["widen features.0.0 1.5"]})
    with monkeypatch.context() as patch:
        patch.setattr(Workshop, "edited", fails)
        outcome = fit(editable(run.path))
    assert "cannot be done" in (requests.answered(file) or {})["error"]["message"]
    assert [event["event"] for event in outcome.events] == ["edit", "withdrawn"]
    plain = fit(job(tmp_path / "plain"))
    assert [name for name in outcome.differs(plain) if name.endswith(".safetensors")] == []


def test_an_undo_that_is_made_is_answered_though_its_effect_cannot_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, *_: Any) -> None:
        raise MemoryError

    run = RunDir(tmp_path / "run")
    files = asking(run, {"edits": ["widen features.0.0 1.5"]}, {"undo": True})
    monkeypatch.setattr(Editor, "effect", fails)
    outcome = fit(editable(run.path))
    assert [event["event"] for event in outcome.events] == ["edit", "undo"]
    (row,) = (requests.answered(files[1]) or {})["edits"]
    assert row["text"] == "undo widen features.0.0 1.5" and "parameters_after" not in row
    show(row)


def test_a_request_is_made_once(tmp_path: Path) -> None:
    """Killed between the record and the answer, the request is still there: it is answered from the record."""
    run = RunDir(tmp_path / "run")
    (file,) = asking(run, {"edits": ["widen features.0.0 1.5"]})
    text = file.read_text()
    fit(editable(run.path))
    assert (requests.answered(file) or {})["step"] == 0
    shutil.rmtree(run.path / "checkpoints")
    file.write_text(text)
    trainer = Trainer(editable(run.path))
    trainer.plan_again()
    trainer.fit()
    assert requests.answered(file) == {"step": 0, "edits": [], "settings": {}}
    assert [event["event"] for event in run.events()] == ["edit"]
    assert trainer.learner.model.get_submodule("network.features.0.0").weight.shape[0] == 6


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    wanted: list[tuple[dict[str, Any], str]] = [
        ({"settings": {"epochs": 1e308}}, "must be fewer"),
        ({"settings": {"epochs": 1e20}}, "must be fewer"),
        ({"settings": {"epochs": 0}}, "more than the 0.00 that are done"),
        ({"settings": {"batch": 10**9}}, "at most the 20 images"),
        ({"settings": {"lr": 1e-5}, "state": "pausd"}, "unknown state"),
        ({"settings": {"epochs": "4", "batch": "10"}}, ""),
    ]
    files = asking(run, *(request for request, _ in wanted))
    fit(editable(run.path))
    for file, (_, said) in zip(files, wanted, strict=True):
        message = (requests.answered(file) or {}).get("error", {}).get("message", "")
        assert said in message and bool(said) == bool(message), message
    assert [event["settings"] for event in run.events()] == [{"epochs": "4", "batch": "10"}]


def test_epochs_that_are_set_count_for_more_than_minutes(tmp_path: Path) -> None:
    """A schedule that was shortened before, at a later step, is not shortened again; nor is a deadline kept after a resume."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.append_event({"event": "pace", "step": 6, "total_steps": 9, "from": STEPS})
    asking(run, {"settings": {"epochs": 2}})
    trainer = Trainer(editable(run.path))
    trainer.plan_again()
    assert trainer.fit().step == 8
    state = json.loads(run.load_checkpoint()[1]["state.json"])["loop"]
    assert state["free"] and not state["timed"] and state["ends"] == [[0, 8]]


def test_edits_are_tried_in_turn_and_a_function_that_changes_is_judged_anew(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    texts = ["deepen features.2 +1", "widen features.2.1.conv1 2"]
    (dry,) = asking(run, {"edits": texts, "dry_run": True})

    class Asks(Stopping):
        trainer: Trainer

        def advance(self, n: int = 1) -> None:
            super().advance(n)
            if self.training and self.steps == 6:
                asking(run, {"edits": ["prune features.2.0.conv1 0.5"]})
                time.sleep(2 * asking_module.LOOK_EVERY)

    fit(editable(run.path, progress=Asks()))
    rows = (requests.answered(dry) or {})["edits"]
    assert [row["text"] for row in rows] == texts and rows[1]["parameters_before"] == rows[0]["parameters_after"]
    assert [event["event"] for event in run.events()] == ["edit"]
    assert len({requests.place(run) for _ in range(100)}) == 100


class Asks(Stopping):
    """Asks for something once `at` steps are done, and waits until it is seen."""

    def __init__(self, run: RunDir, at: int, *wanted: dict[str, Any], stop: int = 0) -> None:
        super().__init__(stop)
        self.run, self.at, self.wanted = run, at, wanted

    def advance(self, n: int = 1) -> None:
        super().advance(n)
        if self.training and self.steps == self.at:
            asking(self.run, *self.wanted)
            time.sleep(2 * asking_module.LOOK_EVERY)


@pytest.mark.parametrize("stops", [False, True])
def test_nothing_is_changed_where_no_step_is_to_come(tmp_path: Path, stops: bool) -> None:
    """After the last one, or where the run stops since nothing gets better: what it has learned is what it leaves."""
    run, text = RunDir(tmp_path / "run"), "prune features.2.0.conv1 0.5"
    edits = (f"when accuracy stalls 1: {text}",) if stops else ()
    config = replace(CONFIG, edits=edits, patience=int(stops))
    asked = Asks(run, 8 if stops else STEPS, {"edits": [text]}, {"settings": {"lr": 1e-4}}, {"edits": [text], "dry_run": True})
    outcome = fit(editable(run.path, config, progress=asked, evaluate=lambda _: {"accuracy": 0.5}))
    told = [json.loads(file.read_text()) for file in sorted(run.requests.glob("*.answer"))]
    assert [one.get("error", {}).get("message") for one in told] == ["the run has ended"] * 2 + [None]
    assert str(run.best) in told[0]["error"]["fix"]
    plain = fit(editable(tmp_path / "plain", replace(config, edits=()), evaluate=lambda _: {"accuracy": 0.5}))
    assert outcome.events == [] and outcome.loop["step"] == (8 if stops else STEPS)
    assert outcome.differs(plain) == []


def anew(path: Path, source: Path, config: TrainConfig = CONFIG, **more: Any) -> Trainer:
    """The run of another folder, from its first step on with its record of changes alone."""
    path.mkdir()
    shutil.copy(source / "events.jsonl", path)
    trainer = Trainer(editable(path, config, **more))
    trainer.plan_again()
    return trainer


def test_what_was_set_is_taken_back_one_after_the_other(tmp_path: Path) -> None:
    """The last first, then what was set before it; the run ends where it was to end, and is replayed to the bit."""
    run, back = RunDir(tmp_path / "run"), {"undo": "settings"}
    settings = [{"lr": 1e-3}, {"epochs": 4.0, "lr": 2e-3}, {"batch": 4, "augment.flip": 0.0, "micro_batch": 2}]
    heard = Asks(run, 4, *({"settings": one} for one in settings), back, back, back, back)
    whole = fit(editable(run.path, progress=heard))
    sets = [event["settings"] for event in whole.events]
    assert sets[3:] == [{"batch": 6, "augment.flip": 0.5, "micro_batch": 0}, {"epochs": 3.0, "lr": sets[0]["lr"]}, {"lr": CONFIG.lr}]
    assert [event.get("undoes") for event in whole.events] == [None, None, None, 2, 1, 0]
    assert any("not done: --undo: the run has no setting to take back" in line for line in heard.messages)
    assert whole.loop["step"] == STEPS and whole.loop["position"] == STEPS * CONFIG.batch
    plain = fit(editable(tmp_path / "plain"))
    assert [name for name in whole.differs(plain) if name.endswith(".safetensors")] == []
    trainer = anew(tmp_path / "again", run.path)
    trainer.fit()
    assert Outcome.of(trainer.job.run).differs(whole) == []


def rates(run: RunDir) -> dict[int, float]:
    """By the number of steps that were done then."""
    return {row["step"]: row["lr"] for row in run.metrics() if "lr" in row}


def test_a_rate_that_is_set_is_the_rate_from_here_on(tmp_path: Path) -> None:
    """And falls from there as it would have fallen; taken back, it is what it would have been."""
    run, plain = RunDir(tmp_path / "run"), RunDir(tmp_path / "plain")
    fit(editable(plain.path))
    fit(editable(run.path, progress=Asks(run, 6, {"settings": {"lr": "1e-3"}})))
    (event,) = run.events()
    at, mine, theirs = event["step"], rates(run), rates(plain)
    assert event["rate"] == 1e-3 and mine[at + 1] == pytest.approx(1e-3) and mine[at] == theirs[at]
    for step in range(at + 1, STEPS + 1):
        assert mine[step] / theirs[step] == pytest.approx(1e-3 / theirs[at + 1])
    again = RunDir(tmp_path / "again")
    heard = Asks(again, 6, {"settings": {"lr": 1e-3}}, {"undo": "settings"})
    assert fit(editable(again.path, progress=heard)).loop["settings"] == {"lr": CONFIG.lr}
    assert rates(again) == theirs
    assert "lr=0.001" in heard.messages[0] and f"undo: lr={again.events()[1]['rate']}" in heard.messages[1]


def test_advice_is_by_the_rate_that_was_set(tmp_path: Path) -> None:
    """And not by the peak of the schedule that leads to it, which nobody has seen."""
    answers, heard = [0.5, 0.5, 0.0], Asks(RunDir(tmp_path), 6, {"settings": {"lr": 1e-3}})
    made = editable(tmp_path, facts=resolved(every=4), task=Failing(), evaluate=lambda _: {"accuracy": answers.pop(0)}, progress=heard)
    trainer = Trainer(made)
    with pytest.raises(UserError, match="collapsed, at step 12") as told:
        trainer.fit()
    rate = trainer.learner.config.lr * trainer.schedule.factor(11)
    assert rate < 1e-3 < trainer.learner.config.lr and f"lr={rate / 4:g}," in told.value.fix


def test_a_rate_that_is_set_in_the_rise_is_what_it_rises_to(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    asking(run, {"settings": {"lr": 1e-3}})
    fit(editable(run.path, replace(CONFIG, warmup=0.5)))
    found = rates(run)
    assert found[1] < found[3] < found[6] == max(found.values()) == pytest.approx(1e-3)


def test_minutes_do_not_come_back(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    files = asking(run, {"settings": {"epochs": 2}}, {"undo": "settings"})
    fit(editable(run.path, replace(CONFIG, minutes=5.0)))
    assert "minutes of a run do not come back" in (requests.answered(files[1]) or {})["error"]["message"]


@pytest.mark.parametrize(("batch", "steps"), [(12, [4, 6, 8]), (4, [4, 10, 16]), (2, [4, 16, 28]), (20, [4, 6, 7])])
def test_evaluations_come_after_as_many_images_whatever_the_batch(tmp_path: Path, batch: int, steps: list[int]) -> None:
    """Every 24 images, as four steps of 6 at first; the batch is another from step 4 on."""
    run = RunDir(tmp_path / "run")
    asked = Asks(run, 4, {"settings": {"batch": batch}})
    fit(editable(run.path, progress=asked))
    (event,) = run.events()
    if event["step"] == 4:  # else the machine was slow, and a step came between
        assert [row["step"] for row in run.metrics() if "metrics" in row] == steps


@pytest.mark.parametrize("settings", [{"batch": 4}, {"batch": 12, "epochs": 2.5}])
def test_the_images_that_are_left_are_told_anew(tmp_path: Path, settings: dict[str, Any]) -> None:
    totals = []

    class Told(Asks):
        def start(self, name: str, total: int | None, unit: str = "images", *, done: int = 0) -> None:
            super().start(name, total, unit, done=done)
            totals.append(total)

    trainer = Trainer(editable(tmp_path, progress=Told(RunDir(tmp_path), 4, {"settings": settings})))
    trainer.fit()
    assert len(totals) > 1 and totals[-1] == trainer.state.position


class Killed(BaseException):
    """The process is gone: nothing is cleared up, nothing said."""


def killed(self: Any, *_: Any, **__: Any) -> None:
    raise Killed


def dies(trainer: Trainer) -> None:
    with pytest.raises(Killed):
        trainer.fit()


@pytest.mark.parametrize("place", ["edited", "step"])
def test_a_change_that_ends_its_process_twice_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """While it is made, or at the step after it; the run goes on as one without it."""
    config, real = replace(CONFIG, edits=("at step 3: widen features.0.0 2",)), Trainer._step

    def step(self: Trainer, batches: Any) -> None:
        if len(self.state.edits):
            raise Killed
        real(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(*((Workshop, "edited", killed) if place == "edited" else (Trainer, "_step", step)))
        dies(Trainer(editable(tmp_path / "run", config)))
        assert json.loads((tmp_path / "run/changing.json").read_text())["times"] == 1
        for _ in range(2):
            heard = Stopping()
            trainer = Trainer(editable(tmp_path / "run", config, progress=heard))
            trainer.plan_again()
            if len(trainer.job.run.events()) == 1 and json.loads((tmp_path / "run/changing.json").read_text())["times"] == 1:
                dies(trainer)
            else:
                trainer.fit()
    assert any("widen features.0.0 2 is left out: the process ended 2 times while it was made" in line for line in heard.messages)
    assert [event["event"] for event in RunDir(tmp_path / "run").events()] == ["edit", "withdrawn"]
    assert not (tmp_path / "run/changing.json").exists()
    plain = fit(editable(tmp_path / "plain"))
    assert [name for name in Outcome.of(trainer.job.run).differs(plain) if name.endswith(".safetensors")] == []


def test_a_change_that_ended_its_process_once_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, edits=("at step 3: widen features.0.0 2",))
    with monkeypatch.context() as patch:
        patch.setattr(Workshop, "edited", killed)
        dies(Trainer(editable(tmp_path / "run", config)))
    trainer = Trainer(editable(tmp_path / "run", config))
    trainer.plan_again()
    trainer.fit()
    assert not (tmp_path / "run/changing.json").exists() and len(trainer.learner.card.edits) == 1
    assert Outcome.of(trainer.job.run).differs(fit(editable(tmp_path / "whole", config))) == []


def test_a_planned_edit_that_cannot_even_be_tried_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the process before it is recorded."""
    config = replace(CONFIG, edits=("at step 3: widen features.0.0 2",))
    with monkeypatch.context() as patch:
        patch.setattr(Editor, "plan", killed)
        for _ in range(2):
            trainer = Trainer(editable(tmp_path / "run", config))
            trainer.plan_again()
            dies(trainer)
        trainer = Trainer(editable(tmp_path / "run", config))
        trainer.plan_again()
        trainer.fit()
    assert [event["event"] for event in trainer.job.run.events()] == ["refused"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"number": 0, "what": "widen features.0.0 2", "times": "many"}'])
def test_a_mark_that_is_none_stands_for_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "changing.json").write_text(content)
    outcome = fit(editable(tmp_path, replace(CONFIG, edits=("at step 3: widen features.0.0 2",))))
    assert [event["event"] for event in outcome.events] == ["edit"] and not (tmp_path / "changing.json").exists()


def test_where_a_run_is_drawn_to_follows_its_edits(tmp_path: Path) -> None:
    """What has learned before moves as its weights do, fresh channels are drawn to what they are drawn about, what is new to nothing; it is
    resumed to the bit, after an undo too."""
    edits = ("at step 3: widen features.0.0 1.5", "at step 5: deepen features.2 +1", "at step 9: replace features.2.0.bn1 GroupNorm 2")
    config = replace(CONFIG, edits=edits, start_decay=0.5)

    def drawn(path: Path, progress: Stopping) -> Job:
        made = editable(path, config, progress=progress)
        return replace(made, learned=[name for name, _ in made.model.named_parameters() if "head" not in name])

    first = dict(drawn(tmp_path / "first", Stopping()).model.named_parameters())
    trainer = Trainer(drawn(tmp_path / "run", Asks(RunDir(tmp_path / "run"), 6, {"undo": True})))
    trainer.fit()
    whole, start = Outcome.of(trainer.job.run), trainer.learner.start
    assert [event["event"] for event in whole.events] == ["edit", "edit", "undo", "edit"]
    weight, norm = start["network.features.0.0.weight"], start["network.features.0.1.weight"]
    assert torch.equal(weight[:4], first["network.features.0.0.weight"]) and (weight[4:] == 0).all() and len(weight) == 6
    assert (norm[4:] == 1).all() and "network.features.2.0.bn1.weight" not in start and "network.features.2.1.conv1.weight" not in start
    assert {name for name in start if name not in trainer.learner.model.state_dict()} == set()
    for after in (4, 8):
        cut = tmp_path / str(after)
        cut.mkdir()
        shutil.copy(tmp_path / "run/events.jsonl", cut)
        one = Trainer(drawn(cut, Stopping(after)))
        one.plan_again()
        with pytest.raises(Interrupted):
            one.fit()
        assert go_on(drawn(cut, Stopping())).differs(whole) == []
    plain = fit(editable(tmp_path / "plain", replace(config, start_decay=0.0)))
    assert whole.differs(plain), "or it would be no test"
