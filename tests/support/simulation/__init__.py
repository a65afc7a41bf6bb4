"""A simulation of whole runs: the product's scheduler, worker and client as actors on one simulated clock.

`world` holds clock, actors and faults; `seams` puts them in place of time, randomness, files and processes; `server`
is the memory store and transport behind unreliable lines; `actors` drive the product's own classes; `oracle` watches
the invariants; `planted` breaks one rule of the product at a time; `play` draws a seed and plays it.
"""
