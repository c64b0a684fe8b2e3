"""Networks of other packages, and a user's own, in the form of this project: they return `teacher.pspnet.Output`.

The packages are imported where a network is built, never before: each is optional.
"""
