"""The benchmark behind ``fastconv bench``.

``worker`` and all that it imports use nothing of the rest of the package, so a worker can run in
an interpreter that has no fastconv; only the peer called fastconv imports it.
"""
