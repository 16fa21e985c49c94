"""The app: drop a picture, ask, and click the words of the answer to see where the model looked.

Needs ``pip install 'vlmattn[app]'``. What happens is in plain functions that know nothing of the page
(:mod:`vlmattn.app.asking`, :mod:`vlmattn.app.showing`); the page only wires them up.
"""

from __future__ import annotations

from vlmattn.app.asking import Asked, Picked
from vlmattn.app.choices import MapChoice
from vlmattn.app.models import Models
from vlmattn.app.serving import Server, serve

__all__ = ["Asked", "MapChoice", "Models", "Picked", "Server", "serve"]
