"""The instruction of every task, composed of a body's description and a goal.

`instructions.toml` holds one table per body: its description (what it is, how many actuated dimensions it
has, what the actions mean) and the goal of each task done with it. A body is described once, so tasks of
one body differ in nothing but their goal. The whole text stays below the 77 tokens that CLIP reads.
"""

import tomllib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Instruction:
    """The two halves of a task's text; both are whole sentences."""

    embodiment: str
    goal: str


def load_instructions() -> dict[str, Instruction]:
    """Reads the instructions of all tasks, by task name.

    Raises:
        ValueError: If a task appears under two bodies.
    """
    text = resources.files("newt.tasks").joinpath("instructions.toml").read_text(encoding="utf-8")
    instructions: dict[str, Instruction] = {}
    for body in tomllib.loads(text).values():
        for name, goal in body["goals"].items():
            if name in instructions:
                raise ValueError(f"instructions.toml describes {name!r} under two bodies")
            instructions[name] = Instruction(embodiment=body["embodiment"], goal=goal)
    return instructions
