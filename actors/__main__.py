"""``python -m actors NAME``: the process of one component."""

from actors.host import main

main()
