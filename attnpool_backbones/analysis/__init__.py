"""Looking into models: what they attend to, what their gates do, what they cost.

A kind of figure is a module of this package with ``add_arguments(parser)`` and
``draw(args) -> Drawing``, and a line in :data:`attnpool_backbones.analysis.command.KINDS`. What it
computes are functions of their own, on models and tensors.
"""
