"""`python -m tasks.command`: how `up` starts a worker, whatever the console script is called."""

from tasks.command.program import main

main()
