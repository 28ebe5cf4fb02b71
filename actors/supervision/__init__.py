"""How the supervisor keeps the components up. Nothing here runs in a child, or imports one."""
