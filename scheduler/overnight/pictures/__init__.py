"""Pictures of a graph: its tasks with their states as colours, large graphs folded by function.

`model` makes a picture of tasks, states and edges; `dot`, `mermaid` and `svg` write one; `layout` places its nodes.
"""
