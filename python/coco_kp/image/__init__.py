"""Images as a whole: encrypt, decrypt, inspect, verify and rewrap them.

The use cases are ``encrypt``, ``decrypt``, ``inspect``, ``verify`` and ``rewrap``. ``plan`` decides
without I/O, ``tree`` reads and writes manifests, ``layer`` moves the bytes of one layer.
"""
