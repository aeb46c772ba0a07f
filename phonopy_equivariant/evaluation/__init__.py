"""Phonons of a potential judged against reference phonons."""
