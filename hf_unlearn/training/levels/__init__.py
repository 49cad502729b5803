"""Levels: what a model that never saw the forget rows would give them, estimated before the first step."""
