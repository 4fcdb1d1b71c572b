from services.learner.worker.connections import SIM_TIMEOUT_S
from services.sim.settings import SimSettings


def test_the_simulator_service_gives_up_a_hung_simulator_before_the_learner_gives_up_the_step() -> None:
    assert SimSettings.model_fields["step_timeout_s"].default < SIM_TIMEOUT_S
