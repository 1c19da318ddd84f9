"""Every model that gfldet ships can be trained, resumed, and repeated from the args.yaml of its run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gfldet import Model, cli
from gfldet.config import load as config
from gfldet.config.assets import cfg_folder, resolve_model_yaml, scales_of
from gfldet.errors import ConfigError
from gfldet.nn.build import PREFERENCES, Description, read_description
from gfldet.store import checkpoint as checkpoints
from gfldet.store.checkpoint import Checkpoint
from gfldet.train.checks import described_head
from gfldet.train.resume import resumed_settings

# The smallest scale, which is the first, of those that have scales.
SHIPPED = ["-".join((path.stem, *scales_of(path)[:1])) for path in sorted((cfg_folder() / "models").glob("*.yaml"))]
# Those on ResNet-50 take too long to be trained; the others take seconds each, but for a tiny one with all they prefer.
TINY_RETINANET = "tiny-retinanet"
TRAINED = [
    TINY_RETINANET,
    *(pytest.param(name, marks=pytest.mark.long) for name in SHIPPED if not name.endswith("r50")),
]


def description_of(name: str) -> Description:
    path, scale = resolve_model_yaml(name)
    return read_description(path, scale)


def test_all_are_there() -> None:
    assert len(SHIPPED) == 13
    assert {name for name in SHIPPED if description_of(name).reg_max == 1} == {
        *("retinanet-r18", "retinanet-r50", "atss-r18", "atss-r50")
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_settings_of_a_run_serve_to_resume_and_to_repeat_it(name: str, tmp_path: Path) -> None:
    description = description_of(name)
    run = config.resolve("train", {"model": name, "epochs": 1}, preferred=description.preferred)
    head = described_head(description, run)
    assert {n for n, origin in run.origins.items() if origin == "model"} == set(description.preferred)

    progress = {"epoch": 1, "step": 1, "best": 0.1, "best_epoch": 0, "seconds": 1.0, "bad_steps": 0}
    last = Checkpoint(head, ("a",), (0,), {}, config.dump(run), training={"progress": progress})
    now = config.resolve("train", {"resume": "x/weights/last.pt", "epochs": 2})
    resumed = resumed_settings(last, Path("x/weights/last.pt"), now)
    assert described_head(last.description, resumed) == head
    assert resumed.explicit == {"epochs"}
    assert config.dump(resumed) == {**config.dump(run), "epochs": 2}

    (tmp_path / "args.yaml").write_text(config.run_yaml(run))
    repeated = config.resolve("train", {"cfg": tmp_path / "args.yaml"}, preferred=description.preferred)
    assert described_head(description, repeated) == head
    assert config.dump(repeated) == config.dump(run)
    assert repeated.notices == ()


@pytest.mark.parametrize("name", [name for name in SHIPPED if description_of(name).reg_max == 1])
def test_what_the_user_gives_now_is_refused_all_the_same(name: str, tmp_path: Path) -> None:
    description = description_of(name)
    (tmp_path / "args.yaml").write_text(config.run_yaml(config.resolve("train", {}, preferred=description.preferred)))
    given = config.resolve("train", {"cfg": tmp_path / "args.yaml", "dfl": 1.0}, preferred=description.preferred)
    with pytest.raises(ConfigError, match="dfl=1 with reg_max=1: a side without bins has no DFL"):
        described_head(description, given)


def test_what_a_model_prefers_is_no_reason_to_refuse() -> None:
    gfl = description_of("gfl-r18")
    settings = config.resolve("train", {"reg_max": 1}, preferred=gfl.preferred)
    assert (settings.dfl, settings.origins["dfl"]) == (0.25, "model")
    assert described_head(gfl, settings).reg_max == 1


@pytest.fixture
def model_of(tiny_yaml: Path) -> Callable[[str], str]:
    def made(name: str) -> str:
        if name != TINY_RETINANET:
            return name
        retinanet = (cfg_folder() / "models" / "retinanet-r18.yaml").read_text(encoding="utf-8")
        keys = [line for line in retinanet.splitlines() if line.split(":")[0] in ("reg_max", *PREFERENCES)]
        graph = tiny_yaml.read_text(encoding="utf-8").replace("reg_max: 8\n", "")
        path = tiny_yaml.with_name(f"{name}.yaml")
        path.write_text("\n".join([*keys, graph]), encoding="utf-8")
        return str(path)

    return made


@pytest.mark.long
@pytest.mark.parametrize("name", TRAINED)
def test_train_resume_repeat(
    name: str,
    model_of: Callable[[str], str],
    dataset: Callable[..., Any],
    quick: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = model_of(name)
    settings = {**quick, "data": str(dataset(train=3, val=1).yaml), "epochs": 1, "model": name}
    assert cli.main(["train", *(f"{key}={value}" for key, value in settings.items())]) == 0
    folder = Path(quick["project"]) / "train"
    first = checkpoints.load(folder / "weights" / "last.pt")
    args = folder.parent / "args.yaml"
    args.write_bytes((folder / "args.yaml").read_bytes())
    assert cli.main(["train", f"resume={folder}", "epochs=2"]) == 0
    assert checkpoints.load(folder / "weights" / "last.pt").epoch == 1

    assert cli.main(["train", f"cfg={args}", "dfl=1.0", "imgsz=64"]) == (2 if first.description.reg_max == 1 else 0)
    assert cli.main(["train", f"cfg={args}", "name=again"]) == 0
    again = checkpoints.load(folder.parent / "again" / "weights" / "last.pt")
    assert all(value.equal(again.weights[key]) for key, value in first.weights.items())
    assert "without effect" not in capsys.readouterr().err
    assert Model(folder / "weights" / "best.pt").description.preferred == first.description.preferred
