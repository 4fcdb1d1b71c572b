"""The device that processes of the learner compute on."""

from __future__ import annotations

import torch

from newt.agent import devices
from newt.agent.config import ConfigError
from services.learner.settings import LearnerSettings
from services.learner.waiting import RunFailedError


def working_device(settings: LearnerSettings) -> torch.device:
    """The device that the settings name, on which something has been computed.

    Raises:
        RunFailedError: It is not there, or torch cannot use it.
    """
    try:
        return devices.working(settings.device)
    except ConfigError as error:
        raise RunFailedError(f"NEWT_LEARNER_DEVICE={settings.device}: {error}") from error
