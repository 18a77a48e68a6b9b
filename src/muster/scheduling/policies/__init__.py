"""Policies: which decisions when, each a reactive and an introspective pass over a session.

muster   ours: highest Gittins index first, known gains only
gandiva  the paper's: every gang gets a placement at once and takes turns; trial and error
"""
