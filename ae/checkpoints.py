"""What a training leaves on its way, so that it can go on from there with the same options and images."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ae.config import config_from
from ae.files import atomic, first_line, read_json, write_json
from ae.run import load_run

if TYPE_CHECKING:
    from pathlib import Path

    from ae.config import TrainConfig


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or not there, whenever the training is killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the place, then rename."""
        content = io.BytesIO()
        torch.save(checkpoint, content)  # into a file on a full disk it fails without saying so
        with atomic(path) as beside:
            beside.write_bytes(content.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        """Read, or say which file is damaged."""
        try:
            return super().load_checkpoint(path, *args, **options)
        except Exception as error:  # noqa: BLE001  # on damaged bytes torch raises whatever it stumbles over
            raise ValueError(f"{path} is damaged ({first_line(error)}); remove it to begin anew") from None


def prepare(out: Path, config: TrainConfig, images: str, *, resume: bool) -> Path | None:
    """Check and mark the run folder; return the checkpoint to go on from. `images`: see `ae.data.digest`."""
    started, checkpoint = out / "started.json", out / "checkpoints" / "last.ckpt"
    if started.exists() or (out / "config.json").exists():
        if not resume:
            raise ValueError(f"{out} holds a training; resume it (--resume) or name another folder")
        if (out / "config.json").exists():
            raise ValueError(f"{out} holds a finished training; name another folder for a new one")
        content = read_json(started)
        seen = content.pop("images", images) if isinstance(content, dict) else images
        try:
            before = config_from(content)  # options that are newer than the file have their defaults
        except (TypeError, ValueError) as error:
            raise ValueError(f"{started} is damaged ({error}); restore it, or name another folder") from None
        if before != config:
            raise ValueError(f"{out} was started with other options; give the same ones, or name another folder")
        if seen != images:
            raise ValueError(f"{out} was started with other images; give the same ones, or name another folder")
        return checkpoint if checkpoint.exists() else None
    write_json(started, asdict(config) | {"images": images})
    return None  # a checkpoint that lies there is of another training


def is_finished(run: Path, config: TrainConfig, images: str) -> bool:
    """Tell whether a run is finished; ValueError where it was with other options or images, see `ae.data.digest`."""
    if not (run / "config.json").exists():
        return False
    found = load_run(run)
    if found.config != config:
        raise ValueError(f"{run} was trained with other options; give the same ones, or name another folder")
    if found.training.get("images_digest", images) != images:
        raise ValueError(f"{run} was trained with other images; give the same ones, or name another folder")
    return True
