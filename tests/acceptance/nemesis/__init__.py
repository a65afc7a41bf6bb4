"""The nemesis: a real deployment on several hosts, every kind of fault at once, and a ledger that knows the truth.

`python -m tests.acceptance.nemesis --minutes 10 --seed 1` runs graph after graph on a server, two schedulers and six
workers behind the proxy of `tests.support.proxy`, while faults drawn from the seed befall all of them. `load` is what
runs, `hosts` and `cluster` where, `schedule` which faults come when, `faults` how each strikes, `clients` who wants the
results, `oracle` and `ending` what must hold, `tally` whether the faults did bite, `arena` the loop that joins them.
"""
