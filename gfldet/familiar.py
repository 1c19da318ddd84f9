"""What a `Model` does besides the commands, under the names that users of other YOLO packages know.

Its device, its size, weights to load and to save, functions to call during a training.  What it lacks names the nearest
thing that it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gfldet.config.kinds import Device
from gfldet.detect import exported
from gfldet.errors import ConfigError, no_attribute
from gfldet.messages import teller

if TYPE_CHECKING:
    import torch

    from gfldet.imports.start import Start
    from gfldet.nn.summary import ModelInfo
    from gfldet.nn.tasks import DetectionModel
    from gfldet.train.callbacks import Callback, RunState
    from gfldet.train.events import Observer

_Self = TypeVar("_Self", bound="Familiar")

_ELSEWHERE = {
    "track": "take predict(source, track=True, stream=True); each result has .boxes.id",
    "trainer": "take .save_dir for the folder of the run; train(observers=[...]) and add_callback tell how it goes",
    "predictor": "predict(source, stream=True) gives one result at a time",
    "validator": "val returns the metrics",
    "metrics": "train and val return them",
    "callbacks": "add_callback adds one",
    "clear_callback": "make another Model; add_callback adds one to this",
    "reset_callbacks": "make another Model; add_callback adds one to this",
    "ckpt_path": "take .source",
    "ckpt": "take .source, and gfldet.store.checkpoint.load(it)",
    "model_name": "take .source",
    "cfg": "take .description",
    "yaml": "take .description",
    "overrides": "give settings to train, val, predict and export",
    "args": "give settings to train, val, predict and export",
    "benchmark": "export compares the file with the model; val measures each",
    "embed": "take .model, the torch module",
    "reset_weights": "make another, Model('NAME.yaml')",
    "cuda": "call .to('cuda')",
    "cpu": "call .to('cpu')",
    "half": "call .export(half=True)",
    "float": "the weights are of float32; leave it out",
    "eval": "predict and val see to it; .model.eval() is for a loop of your own",
    "forward": "call .predict(images), or .model(tensor), the torch module",
    "warmup": "leave it out",
}


class Familiar:
    """The part of `Model` that is no command."""

    task: Literal["detect"] = "detect"

    source: str
    model: Any  # the `DetectionModel`; a property of `Model`
    _start: Start | None
    _model: DetectionModel | None
    _exported: exported.ExportedDetector | None
    _opened_with: tuple[str, int]
    _device = ""  # where `to` put the model
    _pretrained = ""  # what `load` took
    _callbacks: tuple[Callback, ...] = ()

    @property
    def device(self) -> torch.device | str:
        """Where the weights are: a torch.device; of an exported file the name of the device that runs it."""
        return self._exported.device if self._exported else next(self.model.parameters()).device

    def to(self: _Self, device: Any) -> _Self:
        """Put the model on a device (a torch.device, cpu, cuda, cuda:N, N, auto) and return it.

        All that follows computes there unless told otherwise.  Raises ConfigError for a device that is not there.
        """
        try:
            name = Device().read(device)
        except ValueError:
            raise ConfigError(f"to({device!r}): expected {Device().describe()}") from None
        if self._exported:
            self._exported = exported.load(self.source, name)
            self._opened_with = (name, 0)
        else:
            from gfldet.machine.device import pick_device

            self.model.to(pick_device(name))
        self._device = name
        return self

    def fuse(self: _Self) -> _Self:
        """The model as it is: `predict`, `val` and `export` fold its batch norms into a copy by themselves."""
        return self

    def info(self, detailed: bool = False, verbose: bool = True, imgsz: int = 640) -> ModelInfo:
        """Print the size of the model (with `detailed` also that of each layer) unless not `verbose`, and return it:
        layers, parameters, those that training changes, and 10^9 operations for an image of `imgsz` px."""
        model = self.model
        from gfldet.nn.summary import model_info

        found = model_info(model, imgsz)
        tell = teller(verbose)
        for number, layer in enumerate(model.graph.layers if detailed else ()):
            count = sum(p.numel() for p in layer.parameters())
            tell(f"{number:>3}  {type(layer).__name__:<20} {count:>12,} parameters")
        tell(
            f"{model.description.name}: {found.layers} layers, {found.parameters:,} parameters, {found.gradients:,} "
            f"gradients, {found.gflops:.1f} GFLOPs at {imgsz} px"
        )
        return found

    def load(self: _Self, weights: str | Path) -> _Self:
        """Take over the weights of a file as far as they fit, as `train(pretrained=weights)` does, which this Model's
        `train` goes by from now on.  Returns the model.

        A model with fresh weights takes the classes of the file too; one with weights of its own keeps its classes, and
        rows of the class outputs are matched by name.  Raises CheckpointError where the weights do not fit.
        """
        own = self.model
        from gfldet.imports.start import read_start
        from gfldet.nn.tasks import DetectionModel
        from gfldet.store.transfer import transfer

        start = read_start(weights)
        given = start.checkpoint
        if self._start is None:
            model = DetectionModel(replace(own.description, nc=len(given.names)), given.names)
        else:
            model = DetectionModel(own.description, tuple(own.names.values()))
            model.load_state_dict(own.state_dict())
        told = transfer(model, given, start.file)
        teller(True)(start.told(str(told)))
        state = model.state_dict()
        kept = {n: v for n, v in state.items() if not (given.body_only and n.startswith(model.description.head_prefix))}
        before = given if self._start is None else self._start.checkpoint
        checkpoint = replace(
            given,
            description=model.description,
            names=before.names,
            category_ids=before.category_ids,
            weights=kept,
            training=None,
            licence=" ".join(dict.fromkeys(filter(None, (before.licence, given.licence)))),
        )
        self._start, self.model, self._pretrained = replace(start, checkpoint=checkpoint), model, str(weights)
        return self

    def save(self, filename: str | Path = "saved_model.pt") -> None:
        """Write the model with its weights as they are now as a checkpoint, over a file of that name if there is one.

        Raises OutputError if it cannot be written.
        """
        model = self.model
        from gfldet.store import checkpoint as checkpoints
        from gfldet.store import runs

        names = tuple(model.names.values())
        saved = self._start.checkpoint if self._start else None
        state = {name: value.cpu() for name, value in model.state_dict().items()}
        if saved is None:
            saved = checkpoints.Checkpoint(model.description, names, tuple(model.names), state)
        elif saved.body_only:  # the head is none to save: it has learnt nothing
            state = {name: value for name, value in state.items() if name in saved.weights}
        path = Path(filename)
        runs.make(path.parent)
        checkpoints.save(path, replace(saved, description=model.description, names=names, weights=state, training=None))

    def add_callback(self, event: str, function: Callable[[RunState], Any]) -> None:
        """Have `function` called at an event of each training that follows (see `train.callbacks.EVENTS`), with a
        `RunState` that tells how far it is.

        `train(observers=[...])` tells more.  Raises ConfigError for an event that there is not.
        """
        _ = self.model
        from gfldet.train.callbacks import Callback

        self._callbacks = (*self._callbacks, Callback(event, function))

    def _chosen(self) -> dict[str, Any]:
        """Settings that `to` gave."""
        return {"device": self._device} if self._device else {}

    def _observed(self, observers: Any) -> tuple[Observer, ...]:
        """The observers of a run: those that are given, and the functions of `add_callback`."""
        return (*observers, *self._callbacks)

    def __getattr__(self, name: str) -> Any:
        near = _ELSEWHERE
        if name not in near and hasattr(self.__dict__.get("_model"), name):
            near = {name: f"take .model.{name}, of the torch module"}
        raise no_attribute(self, name, near)
