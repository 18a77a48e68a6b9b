"""Which mechanism is used when: the two policies, each a reactive and an introspective pass over a board.

gandiva   the paper's: everyone gets a place at once and takes turns; trial and error
muster    ours: least attained service first, known gains only
"""
