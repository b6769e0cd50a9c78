"""Statistics that boards, speed runs and decisions share: one implementation of each."""
