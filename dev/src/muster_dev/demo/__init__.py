"""`muster demo`: scenes that show muster on a real control plane, one module each.

A scene sets up a situation, observes the result through the API server and returns it as a value. Every figure is measured: a
scene whose expected result does not happen says so.
"""
