"""Behaviour: patterns compiled into vectors, and measured.

`persona.behaviour.verbs` has the verbs of `Repository`.
"""
