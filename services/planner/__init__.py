"""Planning as a service: batches MPPI requests of many clients on one device, swaps weights in between."""
