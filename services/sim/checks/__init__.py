"""What the simulators make of their tasks: `python -m services.sim.checks`, which `newt tasks` starts."""
