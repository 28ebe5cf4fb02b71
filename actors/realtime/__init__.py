"""The conversation with the Realtime API: a sans-IO core, a websocket, the actor around them."""
