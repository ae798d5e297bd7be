"""KBCs: who gets a layer's key out of its packet. Each is loaded only when it is named.

The module ``cc`` has a function ``cc_kbc``, and so on, which makes the KBC for an address; its
keyword arguments are what the owner of this machine may set. ``kbcs.Kbcs`` keeps those that are
open.
"""
