"""Acting with a trained agent: one way for programs of one's own, for planners and for the learner's processes."""
