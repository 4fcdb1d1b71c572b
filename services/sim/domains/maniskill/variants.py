"""Which ManiSkill environment each task is, and how it is controlled and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

EE_POS = "pd_ee_delta_pos"
EE_POSE = "pd_ee_delta_pose"

Kind = Literal["upstream", "reach", "pick-ycb", "push-ycb", "cartpole-balance-sparse", "cartpole-swingup-sparse"]


@dataclass(frozen=True)
class Variant:
    """How a task uses its environment.

    Attributes:
        kind: Origin of the environment's class.
        env_id: ManiSkill's id, for kind `upstream`.
        control: The robot's control mode; None is the environment's own.
        robot: Overrides the environment's robot.
        pack: The asset pack it needs, a key of `assets.PACKS`.
        model_id: The YCB object.
        max_return: The return that scores 1; None scores by success.
        published_max_return: What earlier work divides the return by, where that differs: 0 stands for a score
            that is always 0.
    """

    kind: Kind = "upstream"
    env_id: str = ""
    control: str | None = None
    robot: str | None = None
    pack: str | None = None
    model_id: str | None = None
    max_return: float | None = None
    published_max_return: float | None = None


def _pick(model_id: str) -> Variant:
    return Variant("pick-ycb", control=EE_POSE, pack="ycb", model_id=model_id)


def _push(model_id: str) -> Variant:
    return Variant("push-ycb", control=EE_POSE, pack="ycb", model_id=model_id)


def _upstream(env_id: str, control: str | None = None, **kwargs: Any) -> Variant:
    return Variant("upstream", env_id, control, **kwargs)


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        # Earlier work looks for a success flag, which these two do not have.
        "ms-ant-walk": _upstream("MS-AntWalk-v1", max_return=1000, published_max_return=0),
        "ms-ant-run": _upstream("MS-AntRun-v1", max_return=1000, published_max_return=0),
        "ms-cartpole-balance": _upstream("MS-CartpoleBalance-v1", max_return=1000),
        "ms-cartpole-swingup": _upstream("MS-CartpoleSwingUp-v1", max_return=1000),
        # 500 control steps of at most 1; ManiSkill's own limit would be 600.
        "ms-hopper-stand": _upstream("MS-HopperStand-v1", max_return=500, published_max_return=600),
        "ms-hopper-hop": _upstream("MS-HopperHop-v1", max_return=500, published_max_return=600),
        "ms-pick-cube": _upstream("PickCube-v1", EE_POS),
        "ms-pick-cube-eepose": _upstream("PickCube-v1", EE_POSE),
        "ms-pick-cube-so": _upstream("PickCubeSO100-v1", "pd_joint_delta_pos"),
        "ms-poke-cube": _upstream("PokeCube-v1", EE_POSE),
        "ms-push-cube": _upstream("PushCube-v1", EE_POSE),
        "ms-pull-cube": _upstream("PullCube-v1", EE_POSE),
        "ms-pull-cube-tool": _upstream("PullCubeTool-v1", EE_POSE),
        "ms-stack-cube": _upstream("StackCube-v1", EE_POSE),
        "ms-place-sphere": _upstream("PlaceSphere-v1", EE_POS),
        "ms-lift-peg": _upstream("LiftPegUpright-v1", EE_POSE),
        "ms-pick-apple": _pick("013_apple"),
        "ms-pick-banana": _pick("011_banana"),
        "ms-pick-can": _pick("005_tomato_soup_can"),
        "ms-pick-hammer": _pick("048_hammer"),
        "ms-pick-fork": _pick("030_fork"),
        "ms-pick-knife": _pick("032_knife"),
        "ms-pick-mug": _pick("025_mug"),
        "ms-pick-orange": _pick("017_orange"),
        "ms-pick-screwdriver": _pick("044_flat_screwdriver"),
        "ms-pick-spoon": _pick("031_spoon"),
        "ms-pick-tennis-ball": _pick("056_tennis_ball"),
        "ms-pick-baseball": _pick("055_baseball"),
        "ms-pick-cube-xarm6": _upstream("PickCube-v1", EE_POS, robot="xarm6_robotiq", pack="xarm6"),
        "ms-pick-sponge": _pick("026_sponge"),
        "ms-anymal-reach": _upstream("AnymalC-Reach-v1", "pd_joint_delta_pos", pack="anymal_c"),
        "ms-reach": Variant("reach", control=EE_POS),
        "ms-reach-eepose": Variant("reach", control=EE_POSE),
        "ms-reach-xarm6": Variant("reach", control=EE_POS, robot="xarm6_robotiq", pack="xarm6"),
        "ms-cartpole-balance-sparse": Variant("cartpole-balance-sparse", max_return=1000),
        "ms-cartpole-swingup-sparse": Variant("cartpole-swingup-sparse", max_return=1000),
        "ms-push-apple": _push("013_apple"),
        "ms-push-pear": _push("016_pear"),
        "ms-push-rubiks-cube": _push("077_rubiks_cube"),
        "ms-push-can": _push("005_tomato_soup_can"),
        "ms-push-sponge": _push("026_sponge"),
        "ms-push-banana": _push("011_banana"),
        "ms-push-screwdriver": _push("044_flat_screwdriver"),
        "ms-pick-rubiks-cube": _pick("077_rubiks_cube"),
        "ms-pick-cup": _pick("065-a_cups"),
        "ms-pick-golf-ball": _pick("058_golf_ball"),
        "ms-pick-soccer-ball": _pick("053_mini_soccer_ball"),
    }
)
"""Every task of the domain."""
