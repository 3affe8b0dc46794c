"""The half that serves: it reads routes.json and nothing else that the compiler knows."""
