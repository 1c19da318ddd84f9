"""The house rules that a reader cannot see in one file: who may import whom, and what stays out of start-up.

The rules are those of gfldet/ARCHITECTURE.md; they are read from the syntax trees, so that an import inside a function
counts as much as one at the top of a file.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import gfldet

PACKAGE = Path(gfldet.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A room -> the rooms below it, that is: all it may import, besides itself, `errors` and `files`.
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "messages": set(),
    "machine": set(),
    "writing": set(),
    "signals": set(),
    "config": set(),
    "ops": set(),
    "ranks": {"machine.shared"},
    "launch": {"signals", "ranks.place", "ranks.watch"},
    "assigners": {"ops"},
    "losses": {"ops", "assigners", "ranks.value"},
    "nn": {"ops", "losses", "ranks.value"},
    "data": {"ops", "machine", "messages"},
    "weights": {"messages", "writing"},
    "labels": {"writing"},
    "viz": {"ops", "data.records", "machine", "writing"},
    "boxes": set(),
    "results": {"ops", "viz", "boxes", "labels", "writing"},
    "metrics": {"ops", "data.records"},
    "store": {"nn", "writing"},
}
BELOW["detect"] = {"ops", "nn", "data", "labels", "metrics", "results", "store.runs", "viz", "machine", "writing"}
BELOW["detect"] |= {"boxes", "ranks.value"}
BELOW["health"] = {"data", "metrics.matching"}
BELOW["report"] = {"ops", "data", "viz", "metrics", "detect", "health", "store.runs", "messages", "writing"}
BELOW["imports"] = {"config.assets", "ops", "nn", "store", "messages", "weights"}
BELOW["train"] = {"config", *BELOW} - {"errors"}
BELOW["export"] = {"config", "ops", "nn", "data", "metrics", "detect", "store.runs", "machine", "messages", "writing"}
BELOW["opening"] = {"config", "detect.card", "imports", "nn", "messages"}
BELOW["familiar"] = {"config", "detect.exported", "imports", "machine", "messages", "nn", "store", "train"}
BELOW["tune"] = {"config", "data", "messages", "ranks.place", "store.runs", "train", "writing"}
BELOW["validating"] = {"config", "data", "detect", "machine", "messages", "metrics", "ops", "ranks.value", "report"}
BELOW["validating"] |= {"viz.beside"}
BELOW["predicting"] = {"config", "data", "detect", "labels", "messages", "ops", "results", "store.runs"}
BELOW["together"] = {"config", "data", "detect", "messages", "predicting", "ranks.value", "store.runs"}
BELOW["model"] = set(BELOW) - {"errors"}
BELOW["experiments"] = {"model"}
BELOW["checking"] = {"config", "data", "health", "messages", "model", "report", "store.runs", "train.checks", "writing"}
BELOW["cli"] = {"config", "checking", "launch", "model", "ranks.place", "signals", "train.resume", "tune.folder"}
BELOW["cli"] |= {"weights", "imports.fetch", "viz.beside", "writing"}
BELOW["__main__"] = {"cli"}
BELOW["__init__"] = {"checking", "machine.cores", "model", "results", "train.events"}

# The only part of nn that may know losses: it makes the criterion.
ONLY = {("nn", "losses"): {"nn.tasks"}}

TORCH_FREE = {
    "__init__",
    "__main__",
    "cli",
    "errors",
    "messages",
    "writing",
    "signals",
    "config",
    "metrics",
    "viz",
    "boxes",
    "results",
    "labels",
    "report",
    "health",
    "weights",
}


def module_of(file: Path) -> str:
    """`nn.tasks` for gfldet/nn/tasks.py, `nn` for gfldet/nn/__init__.py, `__init__` for the package's own."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


@cache
def statements_of(text: str) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a module's text, wherever they stand in it."""
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]


@cache
def imports_of(file: Path) -> frozenset[str]:
    """Every imported module by its full name; `from a import b` gives a.b where that is a module, else a."""
    found = set()
    for node in statements_of(file.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        assert node.level == 0, f"{file}:{node.lineno}: a relative import; write the full name"
        for alias in node.names:
            inner = PACKAGE.parent.joinpath(*f"{node.module}.{alias.name}".split("."))
            known = inner.is_dir() or inner.with_suffix(".py").is_file()
            found.add(f"{node.module}.{alias.name}" if known else str(node.module))
    return frozenset(found)


def own_imports(file: Path) -> set[str]:
    """Imported modules of gfldet, without that prefix; the package itself (its version) is open to all."""
    return {name.removeprefix("gfldet.") for name in imports_of(file) if name.startswith("gfldet.")}


def allowed(module: str, target: str) -> bool:
    room, target_room = module.split(".")[0], target.split(".")[0]
    if target_room in (room, "errors", "files"):
        return True
    if module not in ONLY.get((room, target_room), {module}):
        return False
    return any(target == below or target.startswith(f"{below}.") for below in BELOW[room])


def test_every_room_has_its_rule() -> None:
    assert {module_of(file).split(".")[0] for file in FILES} <= set(BELOW)


def floors() -> dict[str, int]:
    """Room -> floor, as gfldet/ARCHITECTURE.md draws the house."""
    text = (PACKAGE / "ARCHITECTURE.md").read_text(encoding="utf-8")
    drawing = text.split("```")[1]
    found = {}
    for line in drawing.splitlines():
        if (number := re.match(r" *(\d+) {3}", line)) is not None:
            rooms = re.findall(r"(?<![\w.`])(\w+)(?:/|\.py)(?= |$)", line[5:52] if number[1] != "0" else line[5:])
            found |= dict.fromkeys(rooms, int(number[1]))
    return found


def test_the_drawing_of_the_house_is_true() -> None:
    drawn = floors()
    assert drawn.keys() == BELOW.keys() - {"__main__", "__init__"}
    for room, floor in drawn.items():
        assert all(drawn[below.split(".")[0]] < floor for below in BELOW[room]), room


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_run_downward_only(file: Path) -> None:
    module = module_of(file)
    wrong = sorted(target for target in own_imports(file) if not allowed(module, target))
    assert not wrong, f"{module} may import {sorted(BELOW[module.split('.')[0]])} only"


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("nn.heads", "losses.detection"),
        ("losses.detection", "nn.tasks"),
        ("ops.boxes", "nn"),
        ("data.train_set", "config.schema"),
        ("metrics.coco", "data.train_set"),
        ("train.trainer", "model"),
        ("cli", "train.trainer"),
        ("detect.predict", "config.schema"),
        ("detect.exported", "export.job"),
        ("store.checkpoint", "train.trainer"),
    ],
)
def test_the_rule_itself_refuses(module: str, target: str) -> None:
    assert not allowed(module, target)


def test_settings_stop_where_runs_are_prepared() -> None:
    users = {module_of(file).split(".")[0] for file in FILES if any(n.startswith("config") for n in own_imports(file))}
    assert users <= {
        "config",
        "train",
        "imports",
        "export",
        "opening",
        "familiar",
        "model",
        "validating",
        "predicting",
        "together",
        "checking",
        "cli",
        "tune",
    }


def test_rooms_without_torch() -> None:
    users = {
        module_of(file)
        for file in FILES
        if {name.split(".")[0] for name in imports_of(file)} & {"torch", "torchvision"}
    }
    assert not {module for module in users if module.split(".")[0] in TORCH_FREE}


# What opens connections, in the standard library and beside it; `urllib.parse` and `urllib.error` alone do not.
NETWORK = {
    *("socket", "ssl", "socketserver", "asyncio", "http", "ftplib", "smtplib", "poplib", "imaplib", "xmlrpc"),
    *("webbrowser", "urllib.request", "urllib3", "requests", "httpx", "aiohttp", "huggingface_hub", "fsspec"),
}
DOWNLOADS = re.compile(r"torch\.hub\.(?!get_dir\b)|load_state_dict_from_url|download_url|hf_hub_download|urlretrieve")
DOWNLOADER = "weights.download"


def network_of(text: str) -> set[str]:
    """What a module's text imports or calls that can open connections."""
    names = {
        full
        for node in statements_of(text)
        for full in (
            alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}" for alias in node.names
        )
    }
    opening = {name for name in names if any(name == bad or name.startswith(f"{bad}.") for bad in NETWORK)}
    opening |= {name for name in names if name.startswith("torch.hub")}
    return opening | set(DOWNLOADS.findall(text))


def test_one_module_alone_can_use_the_network() -> None:
    users = {module_of(file) for file in FILES if network_of(file.read_text(encoding="utf-8"))}
    assert users == {DOWNLOADER}


def test_who_may_start_a_download() -> None:
    """So none starts unless a user writes `gfldet weights get`."""

    def users(target: str) -> set[str]:
        return {module_of(file) for file in FILES if target in own_imports(file)}

    assert users(DOWNLOADER) == {"imports.fetch"}
    assert users("imports.fetch") == {"cli"}


@pytest.mark.parametrize(
    "text",
    [
        "import socket",
        "import urllib.request",
        "from urllib import request",
        "from urllib.request import urlopen",
        "import http.client as h",
        "def f():\n    from http import client",
        "import requests",
        "from torch.hub import load_state_dict_from_url",
        "from torch import hub",
        "import torch\ntorch.hub.load('a', 'b')",
        "import torchvision\ntorchvision.datasets.utils.download_url('a', 'b')",
    ],
)
def test_the_network_is_found(text: str) -> None:
    assert network_of(text)


@pytest.mark.parametrize(
    "text", ["import torch\ntorch.hub.get_dir()", "from urllib.parse import urlsplit", "import socks"]
)
def test_what_opens_no_connection_is_let_be(text: str) -> None:
    assert not network_of(text)


def test_one_module_alone_knows_the_tools_that_may_send() -> None:
    tools = {"mlflow", "wandb", "tensorboard", "torch.utils.tensorboard"}
    users = {module_of(f) for f in FILES if any(n in tools or n.split(".")[0] in tools for n in imports_of(f))}
    assert users == {"train.loggers"}


def test_third_party_imports_are_declared_dependencies() -> None:
    pyproject = PACKAGE.parent / "pyproject.toml"
    if not pyproject.is_file():
        pytest.skip("not a checkout")
    declared = set(re.findall(r'"([A-Za-z][\w-]*)>=', pyproject.read_text(encoding="utf-8").split("[tool.")[0]))
    spelled = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "PIL": "pillow"}
    used = (
        {name.split(".")[0] for file in FILES for name in imports_of(file)} - {"gfldet"} - set(sys.stdlib_module_names)
    )
    assert {spelled.get(name, name) for name in used} <= declared


@pytest.mark.parametrize(
    "code",
    [
        "import gfldet; gfldet.__version__; dir(gfldet)",
        "from gfldet.cli import main; main(['--help'])",
        "from gfldet.cli import main; main(['train', '--help'])",
        "from gfldet.cli import main; main(['settings'])",
        "from gfldet.cli import main; main(['trian'])",
    ],
)
def test_start_up_is_light(code: str) -> None:
    heavy = "{'torch', 'torchvision', 'numpy', 'cv2', 'yaml', 'matplotlib', 'tqdm'}"
    script = f"import sys\n{code}\nprint('heavy:', sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_wrong_settings_are_told_before_torch_is_loaded() -> None:
    script = (
        "import sys; from gfldet.cli import main; sys.exit(main(['train', 'epoch=1']) + 10 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean epochs" in done.stderr


@pytest.mark.parametrize("words", [["weights"], ["weights", "json=true"], ["weights", "get", "v9-x"]])
def test_weights_are_listed_without_torch(words: list[str]) -> None:
    script = (
        f"import sys; from gfldet.cli import main; main({words}); print(sorted({{'torch', 'cv2'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_results_come_without_torch() -> None:
    script = "import sys, gfldet; gfldet.Results; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Modle'"):
        gfldet.Modle  # noqa: B018


# What is not needed for prediction, validation or training, and takes from a tenth of a second to as long as torch.
NEEDLESS = "{'torchvision', 'torch._dynamo', 'torch._inductor', 'sympy', 'matplotlib', 'pycocotools', 'scipy', 'onnx'}"


@pytest.mark.long
def test_commands_import_what_they_need(dataset: Callable[..., Any], tiny_yaml: Path, tmp_path: Path) -> None:
    data = dataset()
    given = ["imgsz=64", "device=cpu", "threads=1", "verbose=false"]
    best = tmp_path / "runs/train/weights/best.pt"
    commands = [
        ["train", f"model={tiny_yaml}", f"data={data.yaml}", "epochs=1", "batch=3", "plots=false", *given],
        ["val", f"model={best}", f"data={data.yaml}", "plots=false", *given],
        ["predict", f"model={best}", f"source={data.images / 'val'}", *given],
    ]
    script = (
        "import sys; from gfldet.cli import main\n"
        f"for words in {commands}:\n"
        "    assert main(words) == 0\n"
        f"    print(words[0], sorted({NEEDLESS} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith(("train", "val", "predict"))]
    assert told == ["train []", "val []", "predict []"]


def test_collection_of_garbage_goes_on_once_all_is_imported(tmp_path: Path) -> None:
    """It stands still at the start of the program alone, not where `main` is called by others."""
    script = (
        "import gc, sys; from gfldet import cli, model\n"
        "class Watched(model.Model):\n"
        "    def val(self, **given): print(gc.isenabled())\n"
        "    def __init__(self, *given): self._start = 0; self.save_dir = None; print(gc.isenabled())\n"
        "model.Model = Watched\n"
        "sys.argv = ['gfldet', 'val', 'data=shapes']\n"
        "cli.main(sys.argv[1:])\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False", "True"]
