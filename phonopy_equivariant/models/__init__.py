"""Layered E(3)-equivariant models: pure functions per layer, dm-haiku inside, no phonopy."""
