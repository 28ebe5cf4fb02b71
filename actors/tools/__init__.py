"""Tools: functions that the model may call, and the actor that runs them."""
