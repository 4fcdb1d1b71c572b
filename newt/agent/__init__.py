"""The Newt agent: world model, losses and update, planning, checkpoints. Pure torch, CPU and CUDA."""
