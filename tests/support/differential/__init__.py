"""Differential mode (ADVERSITY 4): the actors and seeds of the simulation on a real server beside the memory store.

`clocked` lets the product's Redis store and Lua scripts read the simulated clock; `truth` reads what a server holds and
says how the memory store holds the same; `alike` compares; `server` carries each call out on both sides; `play` plays
seeds, many in several processes with a server each.
"""
