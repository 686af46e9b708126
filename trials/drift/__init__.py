"""How far a tuned model has moved from its base."""
