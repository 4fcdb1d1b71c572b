"""Every path below the learner's data folder, known once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataFolder:
    """Where the learner and its processes keep files.

        folder = DataFolder(settings.data_dir)
        folder.run("run-1a2b3c4d") / "videos"

    Nothing is created here.

    Attributes:
        root: The data folder.
    """

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the learner that works here."""
        return self.root / "learner.lock"

    @property
    def imported(self) -> Path:
        """Checkpoints that were brought in."""
        return self.root / "checkpoints"

    @property
    def compiled(self) -> Path:
        """Compiled code, for the next trainer."""
        return self.root / "compiled"

    def task_picture(self, key: str) -> Path:
        """A picture that a simulator has drawn."""
        return self.root / "pictures" / f"{key}.webp"

    @property
    def runs(self) -> Path:
        """Folders of all runs."""
        return self.root / "runs"

    def run(self, run_id: str) -> Path:
        """Checkpoints, videos, logs and results of a run."""
        return self.runs / run_id

    def run_initial(self, run_id: str) -> Path:
        """The checkpoint that a fine-tuning run begins with."""
        return self.run(run_id) / "initial.safetensors"

    def run_logs(self, run_id: str) -> list[Path]:
        """What the processes of a run have said: a file for each, by name."""
        return sorted(path for path in (self.run(run_id) / "logs").glob("*.log") if path.is_file())

    def run_log(self, run_id: str, process: str) -> Path:
        """What a process of a run says."""
        return self.run(run_id) / "logs" / f"{process}.log"

    def evaluation(self, job_id: str) -> Path:
        """Everything of an evaluation on request."""
        return self.root / "evaluations" / job_id

    def evaluation_checkpoint(self, job_id: str) -> Path:
        """Its checkpoint, while it is under way."""
        return self.evaluation(job_id) / "checkpoint.safetensors"

    def evaluation_report(self, job_id: str) -> Path:
        """What came out of it."""
        return self.evaluation(job_id) / "report.json"

    def evaluation_lock(self, job_id: str) -> Path:
        """Held by its process."""
        return self.evaluation(job_id) / "evaluator.lock"

    def evaluation_log(self, job_id: str) -> Path:
        """What its process says."""
        return self.evaluation(job_id) / "evaluator.log"

    @property
    def plays(self) -> Path:
        """Folders of plays that are under way: checkpoint and log."""
        return self.root / "plays"

    def demos_log(self, name: str) -> Path:
        """What the process that collects a demonstration set says."""
        return self.root / "demos" / f"{name}.log"

    def demos_lock(self, name: str) -> Path:
        """Held by that process."""
        return self.root / "demos" / f"{name}.lock"
