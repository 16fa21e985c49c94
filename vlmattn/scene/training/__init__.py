"""How the models in the box are made: ``python -m vlmattn.scene.training MODEL --out DIR``."""
