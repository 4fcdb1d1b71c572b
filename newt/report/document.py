"""A report: figures, their numbers, and a page that holds them together and says what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from newt.report import bars, curves, html, special, style, training
from newt.report.bars import Asked
from newt.report.lines import Line
from newt.report.records import stamp
from newt.report.style import Drawn, Row
from newt.runs.experiments import Drawing, Published

_MOST_GAPS = 40  # that are listed
_RUNS = [
    Drawing(kind="curves", title="Mean score over tasks while training"),
    Drawing(kind="bars", title="Final mean score"),
    Drawing(kind="bars", name="bars-iqm", title="Final interquartile mean", statistic="iqm"),
    Drawing(kind="domains", title="Final mean score by domain"),
    Drawing(kind="task_curves", title="Score of every task while training"),
    Drawing(kind="task_table", title="Final score by task"),
]


@dataclass(frozen=True)
class Report:
    """What a report is made of.

    Attributes:
        title: Of the page.
        lines: The variants, ours first.
        drawings: Figures and tables, in order.
        introduction: Lines of Markdown before them.
        evaluations: Evaluations that were asked for, by name.
        published: The paper's numbers.
        published_tasks: Published scores by task, by their title; empty unless they mean the same as ours.
        comparable: Whether they mean the same as ours: the scale is the paper's.
        notes: What a reader must know.
    """

    title: str
    lines: Sequence[Line]
    drawings: Sequence[Drawing] = tuple(_RUNS)
    introduction: Sequence[str] = ()
    evaluations: Mapping[str, Asked] = field(default_factory=dict)
    published: Sequence[Published] = ()
    published_tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    comparable: bool = False
    notes: Sequence[str] = ()

    def write(self, folder: Path, *, one_file: bool = False) -> list[Path]:
        """Draws everything into a folder; returns the files, report.md first.

        Args:
            folder: Where.
            one_file: Whether report.html, which has all of it inside, is written as well, and is the first then.
        """
        folder.mkdir(parents=True, exist_ok=True)
        page = [f"# {self.title}", "", *self.introduction, ""]
        page += self._gaps()
        files: list[Path] = []
        for drawing in self.drawings:
            drawn = self._draw(drawing)
            files += style.write(drawn, folder, self.stamp())
            page += [f"## {drawn.title}", ""]
            if drawn.figure is not None:
                page += [f"![{drawn.title}]({drawn.stem}.png)", ""]
            page += [*drawn.text, ""] if drawn.text else []
            page += [f"Numbers: [{drawn.stem}.csv]({drawn.stem}.csv)", ""]
        page += self._published() + self._runs()
        style.write_csv(folder / "scores.csv", self._scores())
        text = "\n".join(page).rstrip() + "\n"
        (folder / "report.md").write_text(text, encoding="utf-8")
        files = [folder / "report.md", folder / "scores.csv", *files]
        if not one_file:
            return files
        whole = html.page(self.title, text, {path.name: path.read_bytes() for path in files})
        (folder / "report.html").write_text(whole, encoding="utf-8")
        return [folder / "report.html", *files]

    def missing(self) -> list[str]:
        """Everything that is expected and not there."""
        return list(dict.fromkeys(gap for line in self.lines for gap in line.missing))

    def stamp(self) -> str:
        """Of what runs, seeds and time its pictures are."""
        return stamp(record for line in self.lines for records in line.records.values() for record in records)

    def _draw(self, drawing: Drawing) -> Drawn:
        chosen = [line for line in self.lines if drawing.variants is None or line.name in drawing.variants]
        stem, title = drawing.stem, drawing.title
        asked = {name: self.evaluations[name] for name in drawing.evaluations or () if name in self.evaluations}
        match drawing.kind:
            case "curves":
                return curves.curves(chosen, stem, title, drawing.statistic)
            case "task_curves":
                return curves.task_curves(chosen, stem, title)
            case "bars":
                published = self._beside(drawing) if self.comparable else {}
                return bars.bars(chosen, stem, title, drawing.statistic, drawing.at, published)
            case "domains":
                return bars.domains(chosen, stem, title, drawing.at)
            case "task_table":
                return bars.task_table(chosen, stem, title, drawing.at, self.published_tasks)
            case "evaluations":
                return bars.evaluations(chosen, asked, stem, title)
            case "open_loop":
                return special.open_loop(chosen[0], [item.results for item in asked.values()], stem, title)
            case "losses":
                return training.losses([_group(line) for line in chosen], stem, title, drawing.metrics)
            case "instructions":
                return special.instructions(chosen[0].tasks, _encoder(chosen[0]), stem, title)

    def _beside(self, drawing: Drawing) -> dict[str, float]:
        """The paper's number of each variant, where it is of the same moment."""
        wanted = "before the first step" if drawing.at == "pretrained" else "after"
        same = [item for item in self.published if item.comparable and wanted in item.what]
        return {item.variant: item.value for item in same} if drawing.statistic == "mean" else {}

    def _gaps(self) -> list[str]:
        missing, lines = self.missing(), []
        if missing:
            lines += [
                "## Missing",
                "",
                "No aggregate is made of what is left: where a run is missing there is a gap.",
                "",
            ]
            lines += [f"- {gap}" for gap in missing[:_MOST_GAPS]]
            lines += [f"- and {len(missing) - _MOST_GAPS} more"] if len(missing) > _MOST_GAPS else []
            lines.append("")
        if self.notes:
            lines += ["## Notes", "", *(f"- {note}" for note in self.notes), ""]
        return lines

    def _published(self) -> list[str]:
        if not self.published:
            return []
        titles = {line.name: line.title for line in self.lines}
        why = "" if self.comparable else " They are of another scale: compare the order, not the numbers."
        lines = ["## The paper's numbers", "", f"arXiv 2511.19584v2.{why}", "", "| Variant | Value | What | Source |"]
        lines.append("|---|---|---|---|")
        lines += [
            f"| {titles.get(item.variant, item.variant)} | {item.value:.3f} | {item.what} | {item.source} |"
            for item in self.published
        ]
        return [*lines, ""]

    def _runs(self) -> list[str]:
        lines = ["## Runs", "", "| Variant | Seed | Run | Tasks | Env steps | Updates | Hours |", "|---" * 7 + "|"]
        for line in self.lines:
            for seed, records in line.records.items():
                for record in records:
                    run = record.run
                    begun, ended = run.started_at, run.finished_at
                    hours = f"{(ended - begun).total_seconds() / 3600:.2f}" if begun and ended else "-"
                    tasks = run.tasks[0] if len(run.tasks) == 1 else str(len(run.tasks))
                    updates = run.progress.updates + run.progress.pretrain_updates
                    counts = f"{run.progress.env_steps:,} | {updates:,}"
                    lines.append(f"| {line.title} | {seed} | {run.id} | {tasks} | {counts} | {hours} |")
        return [*lines, ""] if any(line.records for line in self.lines) else []

    def _scores(self) -> list[Row]:
        """Every evaluation of every task."""
        return [
            {
                "variant": line.name,
                "seed": seed,
                "run": record.run.id,
                "task": task,
                "kind": evaluation.kind,
                "mode": evaluation.mode,
                "env_steps": evaluation.env_steps,
                "score": stats.corrected_score,
                "return": stats.return_,
                "success": stats.success,
                "episodes": stats.episodes,
            }
            for line in self.lines
            for seed, records in line.records.items()
            for record in records
            for evaluation in record.results.evaluations
            for task, stats in evaluation.tasks.items()
        ]


def _group(line: Line) -> training.Group:
    runs = [training.Told(record) for seed in line.seeds for record in line.records.get(seed, ())]
    return training.Group(line.legend, runs, len(line.seeds))


def _encoder(line: Line) -> str:
    specs = [record.run.spec for records in line.records.values() for record in records]
    return specs[0].algorithm.text_encoder if specs else "minilm-l6-v2"
