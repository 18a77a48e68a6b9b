"""What training code imports: standard library only, so that any image can have it (`pip install muster` brings nothing else).

Nothing stands here yet. Until it does, a program learns of a suspension from the file /etc/muster/annotations, which shows
its pod's annotations (muster.dev/suspend, muster.dev/stop-at), and from SIGTERM.
"""
