"""The scheduler process: one loop around the pure core.

The truth is in the store. This process reads many events at once, feeds them to each run's `RunState`, and writes all
resulting actions. It may be killed at any instant: another one, or itself restarted, reads the state again and goes on.
It never opens anything of a user's.
"""
