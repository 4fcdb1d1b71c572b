"""The way of weights from a trainer to the planners."""
