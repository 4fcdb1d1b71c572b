"""Meshes that ManiSkill does not ship, and the step which fetches them.

    python -m services.sim.domains.maniskill.assets          # all packs
    python -m services.sim.domains.maniskill.assets xarm6    # some

They go to `$MS_ASSET_DIR/data` (default: `~/.maniskill/data`), where tasks look for them. The YCB pack comes from
Hugging Face, the robots from GitHub; ManiSkill knows the addresses and the checksum.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_MODULE = "services.sim.domains.maniskill.assets"

PACKS: Mapping[str, str] = MappingProxyType(
    {"ycb": "assets/mani_skill2_ycb", "xarm6": "robots/xarm6", "anymal_c": "robots/anymal_c"}
)
"""Where each pack lies below ManiSkill's asset folder."""

_ROBOT_FILES = {"xarm6": "xarm6_robotiq.urdf", "anymal_c": "urdf/anymal.urdf"}


class MissingAssetError(RuntimeError):
    """A task's meshes are not on this machine; the message says how to get them."""


def require(task: str, pack: str, model_id: str | None) -> None:
    """Checks that the files of a task are there.

    ManiSkill itself asks on the terminal whether to download them, and ends the process if nobody answers.

    Args:
        task: For the message.
        pack: A key of `PACKS`.
        model_id: The YCB object which the task uses.

    Raises:
        MissingAssetError: Names the first missing file and the command that fetches the pack.
    """
    from mani_skill import ASSET_DIR

    names = [_ROBOT_FILES[pack]] if pack in _ROBOT_FILES else ["info_pick_v0.json"]
    if model_id is not None:
        names += [f"models/{model_id}/collision.ply", f"models/{model_id}/textured.obj"]
    for name in names:
        path = Path(ASSET_DIR) / PACKS[pack] / name
        if not path.exists():
            raise MissingAssetError(
                f"{task} needs ManiSkill's asset pack {pack!r}, but there is no {path}: run "
                f"`python -m {_MODULE} {pack}`, or set MS_ASSET_DIR to the folder that has it below data/"
            )


def main() -> None:
    """Downloads packs that are not there yet."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description="Fetches meshes for ManiSkill tasks.")
    parser.add_argument("packs", nargs="*", choices=[[], *PACKS], help="which ones; by default all")
    from mani_skill import ASSET_DIR
    from mani_skill.utils import download_asset
    from mani_skill.utils.assets import DATA_SOURCES

    for pack in parser.parse_args().packs or PACKS:
        target = Path(ASSET_DIR) / PACKS[pack]
        if target.exists():
            print(f"{pack}: already in {target}")
        else:
            download_asset.download(DATA_SOURCES[pack])
            print(f"{pack}: downloaded to {target}")


if __name__ == "__main__":
    main()
