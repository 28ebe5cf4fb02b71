"""The deciding half of the realtime component: no socket, no thread, no clock."""
