"""What muster does, shown on a real control plane: `muster demo` and `make demo`, one module a scene.

A scene sets a situation up, watches what comes of it through the API server and returns what it saw as a value. Nothing
that is shown is made up: a scene that does not see what it wants to show says so.
"""
