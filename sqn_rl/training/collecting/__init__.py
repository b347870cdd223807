"""Training where actors collect: the learner's loop, and what an actor does."""
