"""The parts of the model's journey: what is remembered and told, the rules, and who keeps a worker."""
