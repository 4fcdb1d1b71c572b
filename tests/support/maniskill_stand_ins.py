"""Simple bodies in place of the meshes that ManiSkill's tasks download, in the layout of the real packs.

Sizes of objects and lengths of limbs are about right, masses and looks are not.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import trimesh

# Half extents of the YCB objects, metres, and whether a ball resembles them more than a box.
YCB = {
    "005_tomato_soup_can": ((0.0346, 0.0346, 0.0513), False),
    "011_banana": ((0.0352, 0.0994, 0.0189), False),
    "013_apple": ((0.0379, 0.0379, 0.0361), True),
    "016_pear": ((0.0342, 0.0481, 0.0330), True),
    "017_orange": ((0.0365, 0.0369, 0.0364), True),
    "025_mug": ((0.0535, 0.0475, 0.0407), False),
    "026_sponge": ((0.0405, 0.0561, 0.0102), False),
    "030_fork": ((0.0992, 0.0134, 0.0081), False),
    "031_spoon": ((0.0984, 0.0215, 0.0106), False),
    "032_knife": ((0.1075, 0.0102, 0.0080), False),
    "044_flat_screwdriver": ((0.1086, 0.0180, 0.0176), False),
    "048_hammer": ((0.0643, 0.1690, 0.0167), False),
    "053_mini_soccer_ball": ((0.0644, 0.0639, 0.0622), True),
    "055_baseball": ((0.0370, 0.0368, 0.0369), True),
    "056_tennis_ball": ((0.0339, 0.0340, 0.0333), True),
    "058_golf_ball": ((0.0217, 0.0217, 0.0213), True),
    "065-a_cups": ((0.0297, 0.0294, 0.0315), False),
    "077_rubiks_cube": ((0.0296, 0.0302, 0.0291), False),
}
SCALES = {"053_mini_soccer_ball": 0.5}


def write_all(folder: Path) -> None:
    """Writes all packs below `folder`, which is then what MS_ASSET_DIR should name."""
    write_ycb(folder / "data/assets/mani_skill2_ycb")
    write_anymal(folder / "data/robots/anymal_c/urdf/anymal.urdf")
    write_xarm6(folder / "data/robots/xarm6/xarm6_robotiq.urdf")


def write_ycb(folder: Path) -> None:
    facts = {}
    for name, (half, is_round) in YCB.items():
        extents = np.asarray(half)
        model = folder / "models" / name
        model.mkdir(parents=True)
        mesh = trimesh.creation.icosphere(2) if is_round else trimesh.creation.box((2, 2, 2))
        mesh.apply_scale(extents)
        # As text: SAPIEN's reader of binary files trips over numbers whose first byte looks like a line break.
        mesh.export(model / "collision.ply", encoding="ascii")
        mesh.export(model / "textured.obj")
        box = {"min": (-extents).tolist(), "max": extents.tolist()}
        facts[name] = {"bbox": box, "scales": [SCALES.get(name, 1.0)], "density": 1000}
    (folder / "info_pick_v0.json").write_text(json.dumps(facts))


def write_anymal(path: Path) -> None:
    """A box on four legs of three joints; knees point inwards, as the real one's."""
    parts = [link("base", (0.8, 0.3, 0.2), mass=20)]
    for side, y in (("L", 1), ("R", -1)):
        for end, x in (("F", 1), ("H", -1)):
            leg = f"{side}{end}"
            parts += [
                link(f"{leg}_HIP", (0.08, 0.08, 0.08), mass=2, collides=False),
                link(f"{leg}_THIGH", (0.06, 0.06, 0.24), centre=(0, 0, -0.14), mass=2, collides=False),
                link(f"{leg}_KFE", (0.05, 0.05, 0.24), centre=(0, 0, -0.14), mass=0.5),
                link(f"{leg}_FOOT", (0.06, 0.06, 0.06), mass=0.1),
                joint(f"{leg}_HAA", "base", f"{leg}_HIP", (0.36 * x, 0.16 * y, 0), "1 0 0"),
                joint(f"{leg}_HFE", f"{leg}_HIP", f"{leg}_THIGH", (0, 0.08 * y, 0), "0 1 0"),
                joint(f"{leg}_KFE", f"{leg}_THIGH", f"{leg}_KFE", (0, 0, -0.285), "0 1 0"),
                joint(f"{leg}_ankle", f"{leg}_KFE", f"{leg}_FOOT", (0, 0, -0.285)),
            ]
    write_robot(path, "anymal", parts)


def write_xarm6(path: Path) -> None:
    """Six links and a gripper whose fingers close like a Robotiq's: two knuckles hold each, parallel to each other."""
    parts = [
        link("link_base", (0.12, 0.12, 0.2), centre=(0, 0, 0.1), collides=False),
        link("link1", (0.1, 0.1, 0.1), collides=False),
        link("link2", (0.08, 0.08, 0.28), centre=(0, 0, 0.15), collides=False),
        link("link3", (0.08, 0.08, 0.2), centre=(0, 0, 0.1), collides=False),
        link("link4", (0.07, 0.07, 0.2), centre=(0, 0, 0.1), collides=False),
        link("link5", (0.07, 0.07, 0.07), collides=False),
        link("link6", (0.06, 0.06, 0.04), collides=False),
        joint("joint1", "link_base", "link1", (0, 0, 0.267), "0 0 1"),
        joint("joint2", "link1", "link2", (0, 0, 0), "0 1 0"),
        joint("joint3", "link2", "link3", (0, 0, 0.29), "0 -1 0"),
        joint("joint4", "link3", "link4", (0, 0, 0.21), "0 0 1"),
        joint("joint5", "link4", "link5", (0, 0, 0.21), "0 1 0", turned=(0, 0.68, 0)),
        joint("joint6", "link5", "link6", (0, 0, 0.08), "0 0 1"),
        link("robotiq_arg2f_base_link", (0.06, 0.1, 0.05), centre=(0, 0, 0.03), collides=False),
        joint("gripper_fix", "link6", "robotiq_arg2f_base_link", (0, 0, 0.02)),
        link("eef", None),
        joint("eef_fix", "robotiq_arg2f_base_link", "eef", (0, 0, 0.14)),
    ]
    base = "robotiq_arg2f_base_link"
    for side, sign in (("left", 1), ("right", -1)):
        turned = (0, 0, 0 if sign > 0 else math.pi)
        parts += [
            link(f"{side}_outer_knuckle", (0.02, 0.03, 0.01), mass=0.05, collides=False),
            link(f"{side}_inner_knuckle", (0.02, 0.01, 0.04), mass=0.05, collides=False),
            link(f"{side}_outer_finger", (0.02, 0.01, 0.04), mass=0.05, collides=False),
            link(f"{side}_inner_finger", (0.02, 0.01, 0.04), mass=0.05, collides=False),
            link(f"{side}_inner_finger_pad", (0.022, 0.00635, 0.0375), mass=0.05),
            joint(f"{side}_outer_knuckle_joint", base, f"{side}_outer_knuckle",
                  (0, 0.0306 * sign, 0.0549), "1 0 0", turned, (0, 0.81)),
            joint(f"{side}_inner_knuckle_joint", base, f"{side}_inner_knuckle",
                  (0, 0.0127 * sign, 0.0614), "1 0 0", turned, (0, 0.88)),
            joint(f"{side}_outer_finger_fix", f"{side}_outer_knuckle", f"{side}_outer_finger", (0, 0.0315, -0.0041)),
            joint(f"{side}_inner_finger_joint", f"{side}_outer_finger", f"{side}_inner_finger",
                  (0, 0.0061, 0.0471), "1 0 0", limits=(-0.88, 0)),
            joint(f"{side}_pad_fix", f"{side}_inner_finger", f"{side}_inner_finger_pad", (0, -0.022, 0.0324)),
        ]  # fmt: skip
    write_robot(path, "xarm6", parts)


def link(
    name: str,
    size: tuple[float, float, float] | None,
    centre: tuple[float, float, float] = (0, 0, 0),
    mass: float = 1.0,
    collides: bool = True,
) -> str:
    """A box, or nothing at all."""
    origin = f'<origin xyz="{spaced(centre)}"/>'
    x, y, z = size or (0.01, 0.01, 0.01)
    moments = [mass / 12 * (a * a + b * b) for a, b in ((y, z), (x, z), (x, y))]
    inertia = " ".join(
        f'{axis}="{max(moment, 1e-4)}"' for axis, moment in zip(("ixx", "iyy", "izz"), moments, strict=True)
    )
    text = f'<inertial>{origin}<mass value="{mass}"/><inertia {inertia} ixy="0" ixz="0" iyz="0"/></inertial>'
    if size is not None:
        shape = f'{origin}<geometry><box size="{spaced(size)}"/></geometry>'
        text += f"<visual>{shape}</visual>" + (f"<collision>{shape}</collision>" if collides else "")
    return f'<link name="{name}">{text}</link>'


def joint(
    name: str,
    parent: str,
    child: str,
    origin: tuple[float, float, float],
    axis: str | None = None,
    turned: tuple[float, float, float] = (0, 0, 0),
    limits: tuple[float, float] = (-6.28, 6.28),
) -> str:
    """A hinge, or a fixed joint where there is no axis."""
    text = f'<parent link="{parent}"/><child link="{child}"/><origin xyz="{spaced(origin)}" rpy="{spaced(turned)}"/>'
    if axis is not None:
        text += f'<axis xyz="{axis}"/><limit lower="{limits[0]}" upper="{limits[1]}" effort="100" velocity="10"/>'
    return f'<joint name="{name}" type="{"fixed" if axis is None else "revolute"}">{text}</joint>'


def write_robot(path: Path, name: str, parts: Iterable[str]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f'<robot name="{name}">' + "\n".join(parts) + "</robot>\n")


def spaced(numbers: Iterable[float]) -> str:
    return " ".join(map(str, numbers))
