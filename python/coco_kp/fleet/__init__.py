"""Many images, one after another or side by side: a plan, the work, what came of it.

There is no database and no engine: whether an image is done shows in its manifests (:mod:`.look`),
and whoever runs a plan's lines may be killed and started again.
"""
