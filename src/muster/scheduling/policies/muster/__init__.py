"""Policy muster.

policy      a reactive and an introspective pass
transition  from where gangs are to where they are to be, in decisions that are possible one after another
"""
