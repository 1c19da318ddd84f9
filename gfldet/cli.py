"""argv -> one call of `Model`; the help, the messages and the exit codes.

Exit codes: 0 done, 1 the work failed or `check` found what its `fail_at` names, 2 the input is wrong (one message, no
traceback), 130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.  Settings are checked before torch is imported, so
a typing mistake is reported at once; help loads neither torch nor YAML.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gfldet
from gfldet.config.groups import GeneralGroup
from gfldet.config.kinds import Flag, FlagOr
from gfldet.config.schema import (
    COMMANDS,
    VERBS,
    CheckSettings,
    PredictSettings,
    Settings,
    TrainSettings,
    TuneSettings,
    ValSettings,
    WeightsSettings,
    settings_of,
)
from gfldet.config.show import commands_table, default_yaml, help_table
from gfldet.errors import ConfigError, GfldetError, Notice, UserError
from gfldet.ranks.place import devices_of, first_here, launched_by_gfldet, leads, place_of
from gfldet.signals import End, ending

if TYPE_CHECKING:
    from gfldet.model import Model

_TOLD_WITHIN = 10.0  # s in which the process that tells an error of all has found it too
_HELP_WORDS = ("-h", "--help", "help")
_VERSION_WORDS = ("version", "--version", "-V")
_FIRST_STEPS = """\
Settings are written key=value (or --key value), in any order; cfg=my.yaml takes them from a file:
  gfldet check data=my-data.yaml
  gfldet train model=gfldet-n data=my-data.yaml epochs=60 imgsz=640
  gfldet val model=runs/train/weights/best.pt data=my-data.yaml
  gfldet predict model=runs/train/weights/best.pt source=my-images/
  gfldet export model=runs/train/weights/best.pt dynamic=true
  gfldet weights get v9-t"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Without `argv` it is that of this process, which then exists for this command alone (see `signals.ending`).
    """
    if argv is not None:
        return _code_of(list(argv), for_good=False)
    gc.disable()  # what imports make is no garbage, yet there is much of it to look through: `_collect_again`
    leave = _leaving()
    code = _code_of(sys.argv[1:], for_good=True)
    leave(code)
    return code


def _code_of(argv: list[str], for_good: bool) -> int:
    """The exit code of a command line, after what is to be said of its errors."""
    try:
        with ending(for_good) as end:
            return _run(argv, for_good)
    except GfldetError as error:
        return _failed(error, end)
    except KeyboardInterrupt as error:
        return _interrupted(error)
    except BrokenPipeError:  # the reader of our output, for example `head`, has closed it
        _drop_output()
        return 128 + getattr(signal, "SIGPIPE", 13)  # as of a program that this ends by its signal
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"gfldet: {place}{error.strerror}; free space, or choose another place", file=sys.stderr)
        return 2


def _leaving() -> Callable[[int], None]:
    """What is told the exit code, so that the process ends with it as soon as all is done that is to be done at its
    end: to take torch apart object by object would add a tenth to the time of a short command."""
    codes: list[int] = []

    def leave() -> None:
        if not codes:
            return
        try:
            _flush()
        except OSError:
            return  # Python's own end tells of it
        os._exit(codes[0])

    atexit.register(leave)  # before anything else registers, and so called after it
    return codes.append


def _failed(error: GfldetError, end: End) -> int:
    """Tell an error, unless another process of the run tells it; the exit code.

    Who launched them ends the others as soon as one has ended, so one that does not tell waits for who does; if nobody
    does where all should have found the same, it was this one's alone.
    """
    ended = _told(error.told) and end.until_asked(_TOLD_WITHIN)
    if not (ended or error.told):
        print(f"gfldet: {'' if isinstance(error, UserError) else 'the work failed: '}{error}", file=sys.stderr)
    return 2 if isinstance(error, UserError) else 1


def _told(known: bool | None) -> bool:
    """Whether another process of the run tells; where that is not `known`, the first on each machine does."""
    return not first_here() if known is None else known


def _interrupted(error: KeyboardInterrupt) -> int:
    """Tell what the signal was, and how to go on where the work says so; the exit code that shells expect."""
    number = getattr(error, "number", signal.SIGINT)
    what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    words = [*([] if launched_by_gfldet() else [what]), *map(str, error.args)]
    try:
        _flush()
    except OSError:  # its reader got the signal too
        _drop_output()
    if words and not _told(getattr(error, "told", None)):
        with suppress(OSError):
            print("; ".join(("gfldet: " + words[0], *words[1:])), file=sys.stderr, flush=True)
    return 128 + int(number)


def _flush() -> None:
    """Hand on what was printed; a stream that was closed when the process began is None."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _drop_output() -> None:
    """Let what is left to print lead nowhere, so that the end of the process does not fail at it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _collect_again() -> None:
    """Garbage is collected from here on, past all that was imported: a quarter of the time of a start goes into that
    otherwise."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _run(argv: list[str], for_good: bool) -> int:
    command, *rest = argv or ["help"]
    if command in _HELP_WORDS:
        print(_help(rest[0] if rest else ""))
    elif command in _VERSION_WORDS:
        print(gfldet.__version__)
    elif command == "settings":
        print(_all_settings(rest), end="")
    elif command not in COMMANDS:
        raise ConfigError(_no_such_command(command))
    elif any(token in _HELP_WORDS for token in rest):
        print(_help(command))
    else:
        settings, file = _settings(command, rest)
        started = _start_several(settings, argv)
        if started is not None:
            return started
        if not isinstance(settings, ValSettings) or not for_good:
            return _work(command, settings, file)
        from gfldet.viz.beside import drawing_beside

        with drawing_beside(settings.plots and leads()):
            return _work(command, settings, file)
    return 0


def _all_settings(rest: list[str]) -> str:
    """What `gfldet settings` prints."""
    if not rest:
        return default_yaml()
    if any(token in _HELP_WORDS for token in rest):
        return "usage: gfldet settings\n\nPrint every setting as YAML: gfldet settings > my.yaml, then cfg=my.yaml.\n"
    raise ConfigError(f"{rest[0]}: gfldet settings takes nothing; it prints every setting as YAML, the start of a file")


def _help(command: str) -> str:
    """The help of one command, or the overview for an empty name."""
    if not command:
        return "\n\n".join(
            (
                f"gfldet {gfldet.__version__}, an object detector: train, validate and predict on your own boxes",
                "usage: gfldet COMMAND key=value ...",
                f"Commands (gfldet COMMAND --help lists the settings of one):\n{commands_table()}\n"
                "  settings  Print every setting as YAML, the start of a file for cfg=\n"
                "  version   Print the version",
                _FIRST_STEPS,
            )
        )
    if command not in COMMANDS:
        raise ConfigError(_no_such_command(command))
    verb = f"[{VERBS[command]} NAME] " if command in VERBS else ""
    head = f"usage: gfldet {command} {verb}key=value ...\n\n{COMMANDS[command].__doc__}."
    return f"{head}  Each line: name, default, meaning, [what it takes].\n{help_table(command)}"


def _settings(command: str, tokens: list[str]) -> tuple[Settings, str | None]:
    """The checked settings from the tokens after a command, and the value of cfg=; one ConfigError for all mistakes."""
    from gfldet.config.load import check, mistakes

    overrides, problems = _overrides(command, tokens)
    settings, more = check(command, overrides)
    if settings is None or problems:
        raise ConfigError(mistakes(command, problems + more))
    return settings, overrides.get("cfg")


def _overrides(command: str, tokens: list[str]) -> tuple[dict[str, str], list[str]]:
    """`key=value`, `--key=value`, `--key value` and a verb's `key value` as a mapping, and the problems of all other
    tokens."""
    flags = {setting.name for setting in settings_of(COMMANDS[command]) if isinstance(setting.kind, (Flag, FlagOr))}
    overrides: dict[str, str] = {}
    problems: list[str] = []
    queue = list(tokens)
    while queue:
        token = queue.pop(0)
        option = token.startswith("--")
        name, equals, value = token.removeprefix("--").partition("=")
        if option:
            name = name.replace("-", "_")
        verb = not equals and token == VERBS.get(command)
        if verb or (option and not equals):
            follows = bool(queue) and not queue[0].startswith("--") and "=" not in queue[0]
            if follows:
                value = queue.pop(0)
            elif name in flags:
                value = "true"  # --exist-ok alone
            else:
                problems.append(f"{token}: a value is missing; write {f'{name} NAME' if verb else f'{name}=VALUE'}")
                continue
        elif not equals or not name:
            problems.append(f"{token}: settings are written key=value, without blanks{_meant(token, command)}")
            continue
        if name in overrides:
            problems.append(f"{name}: given twice ({overrides[name]} and {value})")
        overrides[name] = value
    return overrides, problems


def _meant(token: str, command: str) -> str:
    """A guess at what a bare word should have been."""
    names = [setting.name for setting in settings_of(COMMANDS[command])]
    close = get_close_matches(token.lower(), names, n=1)
    if close:
        return f"; did you mean {close[0]}=VALUE?"
    if command in VERBS:
        return f"; did you mean {VERBS[command]} {token}? gfldet {command} alone lists all"
    guess = "source" if command == "predict" else "data" if token.endswith((".yaml", ".yml")) else ""
    if token.endswith((".pt", ".onnx", ".xml")):
        guess = "weights" if command == "import" else "model"
    return f"; did you mean {guess}={token}?" if guess else ""


def _no_such_command(word: str) -> str:
    close = get_close_matches(word.lower(), [*COMMANDS, "settings", "version", "help"], n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{word}: no such command{hint}\nThe commands are {', '.join(COMMANDS)}, settings, version and help."


def _work(command: str, settings: Settings, file: str | None) -> int:
    """Call `Model` with the settings that the user gave, and print where the results are; the exit code.

    `file` is the value of cfg=.  If a run wrote that file, `Model` reads it again, so it knows that the user did not
    give these values now.
    """
    if isinstance(settings, WeightsSettings):
        _weights(settings)
        return 0
    if isinstance(settings, CheckSettings):
        return _check(settings)
    from gfldet.model import Model, import_weights

    tell = _teller() if leads() else lambda *_, **__: None
    for notice in settings.notices:
        tell(notice)
    given = {name: getattr(settings, name) for name in sorted(settings.explicit - {"model"})}
    if "restored" in settings.origins.values():
        given["cfg"] = file
    if not isinstance(settings, GeneralGroup):
        print(f"Written: {import_weights(**given)}")
        return 0
    model = Model(_model_of(settings, given))
    if command in ("predict", "val") and model.is_fresh:
        tell(f"{model.source}: its weights are random, so what it finds means nothing; give the weights of a training")
    _collect_again()
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        warnings.showwarning = tell
        if command == "export":
            print(f"Written: {model.export(**given)}")
        elif command == "predict":
            if "save" not in settings.origins:  # a user of the shell wants to see pictures
                given["save"] = True
            _predict(model, given)
        else:
            getattr(model, command)(**given)
    if model.save_dir is not None and leads():
        print(f"Results are in {model.save_dir}")
    return 0


def _predict(model: Model, given: Mapping[str, Any]) -> None:
    """Predict, by all processes of torchrun where there are several."""
    if place_of().size > 1:
        model.predict_together(**given)
        return
    for result in model.predict(stream=True, **given):  # one image at a time: a folder or video may be large
        del result  # before the next picture is read


def _check(settings: CheckSettings) -> int:
    """Check a data set; the exit code is 1 where something as grave as `fail_at` is found."""
    from gfldet.checking import run_check

    _collect_again()
    return int(run_check(settings).fails(settings.fail_at))


def _start_several(settings: Settings, argv: Sequence[str]) -> int | None:
    """Run the command in several processes where its devices ask for that; their exit code, None for one process."""
    if not isinstance(settings, (TrainSettings, ValSettings, PredictSettings)) or place_of().size > 1:
        return None
    if isinstance(settings, TuneSettings):  # it refuses several devices
        return None
    device = settings.device
    if isinstance(settings, TrainSettings) and settings.resume is not False and "device" not in settings.origins:
        from gfldet.train.resume import device_of_run

        device = device_of_run(settings, place_of())
    processes = len(devices_of(device))
    if processes == 1:
        return None
    from gfldet.launch import launch

    return launch(processes, argv)


def _weights(settings: WeightsSettings) -> None:
    """List the public weights, or get those that the user names; neither needs a `Model`."""
    from gfldet.weights import folder, table
    from gfldet.writing import write_aside

    if settings.get:
        from gfldet.imports.fetch import fetch

        path = fetch(settings.get, again=settings.exist_ok, verbose=settings.verbose)
        if not settings.verbose:
            print(path)
    elif isinstance(settings.json, str):
        text = table.as_json(folder.folder())
        write_aside(Path(settings.json), lambda file: file.write(f"{text}\n".encode()))
    else:
        print((table.as_json if settings.json else table.shown)(folder.folder()))


def _model_of(settings: GeneralGroup, given: dict[str, Any]) -> str:
    """What to make the `Model` of.

    A training that names weights and no model is of the model that these are of: they are taken out of `given`.  A tune
    that goes on has a model.
    """
    if not isinstance(settings, TrainSettings) or "model" in settings.origins:
        return settings.model
    if isinstance(settings, TuneSettings) and settings.resume is not False:
        from gfldet.tune.folder import model_of

        return model_of(settings)
    if "resume" in settings.origins or settings.pretrained in (None, "imagenet"):  # which is of any ResNet
        return settings.model
    return str(given.pop("pretrained"))


def _teller() -> Callable[..., None]:
    """A function that prints a notice, each text only once; it also fits as `warnings.showwarning`."""
    printed: set[str] = set()

    def tell(message: Warning | str, *where: object, **more: object) -> None:
        if str(message) not in printed:
            print(f"notice: {message}", file=sys.stderr)
            printed.add(str(message))

    return tell
