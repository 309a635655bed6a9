"""Commands about cameras: pause, resume, an operator's threshold, a scan of the folder, the configuration anew."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.contract.threshold import DEFAULT_THRESHOLD, operators_threshold
from agent.control.context import CommandError
from agent.control.reports import cameras_of

if TYPE_CHECKING:
    from agent.config import Camera
    from agent.control.arguments import Arguments, CameraOrAll, NewThreshold, OneCamera
    from agent.control.context import Context, Who


def pause(context: Context, asked: OneCamera, who: Who) -> dict[str, Any]:
    """Judge no more strips of a camera until it is resumed: they wait, and are counted."""
    _configured(context, asked.camera)
    changed = context.ledger.operators.pause(asked.camera, who.by)
    return {"camera": asked.camera, "changed": changed, **asdict(context.ledger.operators.paused[asked.camera])}


def resume(context: Context, asked: OneCamera, _: Who) -> dict[str, Any]:
    """Judge a paused camera's strips again."""
    if asked.camera not in context.ledger.operators.paused:  # one that was taken out of the configuration, too
        _configured(context, asked.camera)
    changed = context.ledger.operators.resume(asked.camera)
    context.ring()
    return {"camera": asked.camera, "changed": changed}


def set_threshold(context: Context, asked: NewThreshold, who: Who) -> dict[str, Any]:
    """Set a camera's threshold over that of the configuration and the model, or take it back (`clear`)."""
    operators, method = context.ledger.operators, context.config.scoring.method
    if asked.clear:
        if asked.camera not in operators.thresholds:
            _configured(context, asked.camera)
        return {"changed": operators.clear_threshold(asked.camera)} | _threshold_of(context, asked.camera)
    _configured(context, asked.camera)
    if asked.value is None:
        raise CommandError("give a value, or clear: true")
    if operators_threshold(asked.value, method, method) is None:
        allowed = "a number of pixels above 0" if method == "area" else "from 0 to 1"
        raise CommandError(f"{asked.value:g} is no threshold: with scoring.method: {method} it is {allowed}")
    operators.set_threshold(asked.camera, asked.value, method, who.by)
    return {"changed": True} | _threshold_of(context, asked.camera)


def threshold(context: Context, asked: OneCamera, _: Who) -> dict[str, Any]:
    """Tell which threshold decides about a camera's strips from now on, and whose it is."""
    if asked.camera not in context.ledger.operators.thresholds:
        _configured(context, asked.camera)
    return _threshold_of(context, asked.camera)


def rescan(context: Context, asked: CameraOrAll, _: Who) -> dict[str, Any]:
    """Read a camera's folder as a whole soon, or those of all; what was found before stays as it is."""
    if asked.camera is not None:
        _configured(context, asked.camera)
    if context.rescan is None:
        raise CommandError("the service is not running; when it starts it scans every folder")
    cameras = sorted(cameras_of(context)) if asked.camera is None else [asked.camera]
    for camera in cameras:
        context.rescan(camera)
    return {"cameras": cameras}


def reload(context: Context, _: Arguments, __: Who) -> dict[str, Any]:
    """Take on what the configuration's file says now, as a whole; refused where that is not possible."""
    if context.reload is None:
        raise CommandError("the service is not running; when it starts it reads its configuration")
    return context.reload()


def _configured(context: Context, name: str) -> Camera:
    for camera in context.config.cameras:
        if camera.name == name:
            return camera
    raise CommandError(f"there is no camera {name[:80]!r}; configured are {', '.join(sorted(cameras_of(context)))}")


def _threshold_of(context: Context, name: str) -> dict[str, Any]:
    """Tell what decides. What a model names is only known to its worker, and decides only where nothing else does."""
    told = context.ledger.operators.thresholds.get(name)
    method = context.config.scoring.method
    camera = next((camera.threshold for camera in context.config.cameras if camera.name == name), None)
    said = {
        "operator": None if told is None else operators_threshold(told.value, told.method, method),
        "camera": camera,
        "configuration": context.config.scoring.threshold,
    }
    source = next((source for source, value in said.items() if value is not None), "model")
    return {
        "camera": name,
        "threshold": said.get(source),
        "source": source,
        "without_one": DEFAULT_THRESHOLD,
        "operator": None if told is None else asdict(told) | {"in_use": said["operator"] is not None},
    }
