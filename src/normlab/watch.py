"""What is seen of a training while it runs, when it is saved, and when it stops before its end."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from normlab.checkpoint import Trained, TrainingState, save

PROGRESS_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A glance at a running cohort: images trained of all, and the latest loss and accuracy, means over its trials."""

    done_images: int
    total_images: int
    resumed_images: int  # of those done, what an earlier process did
    loss: float | None  # None before there is one in this process
    accuracy: float | None  # of the last test evaluation


class Stopped(Exception):  # noqa: N818 - not an error: the time was over
    """Training stopped between two steps, at its deadline or when it was told to; its checkpoint, if any, holds what
    was done."""


@dataclass(kw_only=True)
class Watch:
    """Over one training: reads its `state`, and writes its seconds there; `train` says what the others mean."""

    state: TrainingState
    total_images: int
    began: float  # by time.monotonic, as if one process had done it all
    report: Callable[[Progress], None]
    checkpoint: Path | None
    checkpoint_seconds: float
    deadline: float | None
    is_over: Callable[[], bool]
    warn: Callable[[str], None]
    loss: float | None = None  # the latest that is known

    def __post_init__(self) -> None:
        self._resumed_images = self.state.images
        self._last_report, self._last_save = 0.0, time.monotonic()

    def alive(self, loss: Callable[[], float | None] | None = None) -> None:
        """Reports where training stands, if the last report is half a second old; `loss` is asked only then."""
        if time.monotonic() - self._last_report <= PROGRESS_SECONDS:
            return
        self._last_report = time.monotonic()
        self.loss = loss() if loss else self.loss
        self.report(
            Progress(
                done_images=self.state.images, total_images=self.total_images, resumed_images=self._resumed_images,
                loss=self.loss, accuracy=self.state.accuracy,
            )
        )  # fmt: skip

    def pause(self, step: Trained, within: Callable[[], Mapping[str, torch.Tensor]] = dict) -> None:
        """Saves where training stands, and within an epoch, if that is due, and stops it if its time is over."""
        now, stop = time.monotonic(), self.is_over() or (self.deadline is not None and time.time() > self.deadline)
        self.state.seconds = now - self.began
        if self.checkpoint and (stop or now - self._last_save >= self.checkpoint_seconds):
            try:
                save(self.checkpoint, step, self.state, within())
            except OSError as error:  # a full disk costs the way back, not the training
                self.warn(
                    f"checkpoint {self.checkpoint}: cannot be written ({error.strerror}); training goes on without it"
                )
            self._last_save = time.monotonic()
        if stop:
            raise Stopped
