"""How one step run is executed: claim, confine, call, settle.

claims    ledger + queue in one statement: what a worker takes up
attempt   what was claimed: one numbered execution of a step run
inputs    the attempt's arguments, gathered from ledger and Storage
call      the step's function called with them, in a child or in the worker's loop
outcomes  what an error means: try again, or fail
runner    the whole of it, as a sentence
desk      the ledger's calls for workers
"""
