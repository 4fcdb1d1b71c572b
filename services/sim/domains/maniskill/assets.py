"""Meshes that ManiSkill does not ship, and the step which fetches them.

    python -m services.sim.domains.maniskill.assets          # all packs
    python -m services.sim.domains.maniskill.assets xarm6    # some

They go to `$MS_ASSET_DIR/data` (default: `~/.maniskill/data`), where tasks look for them. The YCB pack comes from
Hugging Face, the robots from GitHub; ManiSkill knows the addresses and the checksum.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from services.sim.domains.base import MissingAssetError

_MODULE = "services.sim.domains.maniskill.assets"

PACKS: Mapping[str, str] = MappingProxyType(
    {
        "ycb": "assets/mani_skill2_ycb/info_pick_v0.json",
        "xarm6": "robots/xarm6/xarm6_robotiq.urdf",
        "anymal_c": "robots/anymal_c/urdf/anymal.urdf",
    }
)
"""A file of each pack, below ManiSkill's asset folder, that is there if and only if the pack is."""


def require(task: str, pack: str, model_id: str | None) -> None:
    """Checks that the files of a task are there.

    ManiSkill itself asks on the terminal whether to download them, and ends the process if nobody answers.

    Args:
        task: Task, for the message.
        pack: A key of `PACKS`.
        model_id: The YCB object which the task uses.

    Raises:
        MissingAssetError: Names the first missing file and the command that fetches the pack.
    """
    from mani_skill import ASSET_DIR

    paths = [Path(ASSET_DIR) / PACKS[pack]]
    if model_id is not None:
        paths += [paths[0].parent / "models" / model_id / name for name in ("collision.ply", "textured.obj")]
    for path in paths:
        if not path.exists():
            raise MissingAssetError(
                f"{task} needs ManiSkill's asset pack {pack!r}, but there is no {path}: run "
                f"`python -m {_MODULE} {pack}`, or set MS_ASSET_DIR to the folder that has it below data/"
            )


def main() -> None:
    """Downloads the packs that are not there yet."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description="Fetches meshes for ManiSkill tasks.")
    parser.add_argument("packs", nargs="*", help=f"some of {', '.join(PACKS)}; by default all")
    packs = parser.parse_args().packs or list(PACKS)
    if unknown := set(packs) - set(PACKS):
        parser.error(f"no pack {', '.join(sorted(unknown))}; there are {', '.join(PACKS)}")
    from mani_skill import ASSET_DIR
    from mani_skill.utils import download_asset
    from mani_skill.utils.assets import DATA_SOURCES

    for pack in packs:
        path = Path(ASSET_DIR) / PACKS[pack]
        if path.exists():
            print(f"{pack}: already in {ASSET_DIR}")
            continue
        source = DATA_SOURCES[pack]
        try:
            download_asset.download(source)
        except OSError as error:
            sys.exit(f"{pack}: cannot download {source.url}: {error}")
        if not path.exists():
            sys.exit(f"{pack}: {source.url} has another layout than expected: there is no {path}")
        print(f"{pack}: downloaded to {ASSET_DIR}")


if __name__ == "__main__":
    main()
